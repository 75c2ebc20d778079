use super::*;
use crate::fs::twin::Twin;
#[test]
fn smoke() {
    let ground = Ground {
        fs: Fs::Twin(Twin::new()),
        clock: Clock::system(),
        hasher: KeyHasher::weak,
        threads: false,
    };
    let path = Path::new("/store");
    let db = Bitcask::open_on(&ground, path, Options::default()).unwrap();
    for i in 0..100u32 {
        db.put(i.to_be_bytes(), i.to_string()).unwrap();
    }
    for i in (0..100u32).step_by(3) {
        assert!(db.delete(i.to_be_bytes()).unwrap());
    }
    println!("{:?}", db.stats());
    db.close().unwrap();
    let db = Bitcask::open_on(&ground, path, Options::default()).unwrap();
    println!("{:?} {:?}", db.stats(), db.recovery());
    for i in 0..100u32 {
        assert_eq!(
            db.get(i.to_be_bytes()).unwrap().map(Vec::from),
            (i % 3 != 0).then(|| i.to_string().into_bytes())
        );
    }
    for i in 0..100u32 {
        db.put(i.to_be_bytes(), "x").unwrap();
    }
    let Fs::Twin(t) = &ground.fs else { panic!() };
    let g2 = Ground { fs: Fs::Twin(t.kill_image_now()), ..ground.clone() };
    let db2 = Bitcask::open_on(&g2, path, Options::default()).unwrap();
    println!("{:?} {:?}", db2.stats(), db2.recovery());
    for i in 0..100u32 {
        assert_eq!(db2.get(i.to_be_bytes()).unwrap().unwrap(), "x");
    }
}
