//! The short path of ordinary gets, beside the one that every get could take.

use crate::store::point::plain::Plain;
use crate::store::tests::story::Random;
use crate::store::tests::*;

const KEYS: u64 = 40;

fn change(db: &Bitcask, random: &mut Random) {
    let key = random.below(KEYS).to_be_bytes();
    let value = vec![b'v'; usize::try_from(random.below(300)).unwrap()];
    match random.below(8) {
        0 => drop(db.delete(key).unwrap()),
        1 => db.put_opt(key, value, WriteOptions::new().ttl(Duration::from_secs(20))).unwrap(),
        2 => drop(db.merge().unwrap()),
        _ => db.put(key, value).unwrap(),
    }
}

/// Reads a key in each way, and returns whether the short path knew it.
fn read_twice(db: &Bitcask, key: &[u8]) -> bool {
    let general = db.inner.get_unusual(key).unwrap();
    assert_eq!(db.get(key).unwrap(), general);
    let lent = |value: &[u8]| value.to_vec();
    let general = general.map(|value| value.to_vec());
    assert_eq!(db.inner.lend_unusual(key, lent).unwrap(), general);
    assert_eq!(db.get_with(key, lent).unwrap(), general);
    let guard = db.inner.pin();
    match db.inner.find_plain(key, &guard) {
        Plain::Found { entry, .. } => assert_eq!(Some(entry.value()), general.as_deref()),
        Plain::Absent => assert_eq!(general, None),
        Plain::Unusual => return false,
    }
    true
}

#[test]
fn ordinary_gets_find_what_the_general_path_finds() {
    for lab in [Lab::new(), Lab::weak()] {
        for compression in Compression::all() {
            let lab = lab.clone().with(lab.options.clone().compression(compression));
            let lab = Lab { twin: Twin::new(), ..lab }.seeded(7);
            let (db, mut random, mut plain) = (lab.open(), Random(7), 0);
            for _ in 0..200 {
                change(&db, &mut random);
                lab.hands.advance(Duration::from_secs(1));
                for key in 0..KEYS + 2 {
                    plain += u32::from(read_twice(&db, &key.to_be_bytes()));
                }
            }
            // Not every get is ordinary, and neither is none, unless all values are compressed.
            let least = if compression == Compression::None { 500 } else { 1 };
            assert!((least..200 * 42).contains(&plain), "{plain}");
        }
    }
}
