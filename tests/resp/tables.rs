//! What `COMMAND` tells.

use crate::support::Served;

#[test]
fn commands_are_described() {
    let served = Served::new();
    let mut client = served.client();
    let get = client.run("COMMAND INFO get missing");
    assert!(get.starts_with("[['get' (2) [readonly fast] (1) (1) (1) ["), "{get}");
    assert!(get.ends_with("no array]"), "{get}");
    client.is("COMMAND GETKEYS MSET a 1 b 2", "['a' 'b']");
    client.is("COMMAND GETKEYS OBJECT ENCODING k", "['k']");
    client.fails("COMMAND GETKEYS PING", "ERR The command has no key arguments");
    client.fails("COMMAND GETKEYS GET a b", "ERR Invalid number of arguments");
    client.fails("COMMAND GETKEYS FOO x", "ERR Invalid command specified");
    let docs = client.run("COMMAND DOCS set");
    assert!(docs.starts_with("['set' ['summary' 'Sets a string.'"), "{docs}");
    let count = client.run("COMMAND COUNT").trim_matches(['(', ')']).parse::<usize>().unwrap();
    assert_eq!(client.run("COMMAND LIST").split(' ').count(), count);
    assert!(count > 100, "{count}");
    client.is("COMMAND LIST FILTERBY PATTERN getd*", "['getdel']");
    let all = client.run("COMMAND");
    assert!(all.contains("'client|tracking'"));
}
