//! A store looked at from outside.
//!
//! - What a writer beside us is just doing is no damage: what does not check is read again, and if the
//!   manifest has changed meanwhile, everything is.

use std::ops::ControlFlow;
use std::path::Path;

use super::plan::{Plan, Subject};
use super::report::Diagnosis;
use super::survey::{Survey, survey};
use crate::error::Result;
use crate::fs;
use crate::keydir::{Keydir, SHARD_COUNT};
use crate::manifest::Manifest;
use crate::segment::Dir;
use crate::segment::hint::{Hint, HintFile, Source};
use crate::segment::resync::Lost;
use crate::segment::scan::refusal;
use crate::store::{Damage, Ground, damage, foresee};

/// How often it starts over when a writer changes the store meanwhile.
const ATTEMPTS: usize = 10;

pub(crate) fn verify_on(ground: &Ground, path: &Path) -> Result<Diagnosis> {
    let dir = Dir::new(fs::absolute(path)?);
    let listed = || Manifest::read(&ground.fs, &dir).ok().flatten();
    let mut attempt = 0;
    loop {
        attempt += 1;
        let before = listed();
        let diagnosis = look(ground, &dir);
        let is_fine = diagnosis.as_ref().is_ok_and(|found| {
            found.is_clean() && found.derived.is_empty() && found.opening.is_ok()
        });
        if is_fine || attempt == ATTEMPTS || listed() == before {
            return diagnosis;
        }
    }
}

fn look(ground: &Ground, dir: &Dir) -> Result<Diagnosis> {
    let plan = Plan::new(ground, dir)?;
    let mut diagnosis = Diagnosis {
        opening: foresee(ground, dir),
        segments: 0,
        entries: 0,
        tombstones: 0,
        size: 0,
        damage: plan.damage.clone(),
        torn: Vec::new(),
        derived: Vec::new(),
        leftovers: plan.leftovers.clone(),
        quarantine: plan.quarantine.clone(),
    };
    let manifest = plan.manifest.as_ref();
    let keydir = manifest.map(|manifest| Keydir::new((ground.hasher)(manifest.identity.hash_seed)));
    // Torn, unless something was written behind it.
    let mut torn = Vec::new();
    for subject in &plan.subjects {
        let mut found = examine(ground, &plan, subject, keydir.as_ref())?;
        diagnosis.segments += 1;
        diagnosis.entries += found.entries;
        diagnosis.tombstones += found.tombstones;
        diagnosis.size += found.runs.iter().map(|run| run.end - run.start).sum::<u64>();
        if let (Some(manifest), Some(length), Some(hint)) =
            (manifest, subject.sealed, found.hint.take())
        {
            let source = Source { id: subject.id, identity: manifest.identity, length };
            if found.lost.is_empty() {
                diagnosis.derived.extend(compare(ground, dir, source, &hint.finish())?);
            }
        }
        if subject.sealed.is_none() && found.entries > 0 {
            diagnosis.damage.append(&mut torn);
        }
        diagnosis.damage.extend(found.lost.iter().map(|lost| told(subject, lost)));
        diagnosis.damage.extend(strange(subject, &found)?);
        diagnosis.damage.extend(missing(ground, dir, &plan, subject, &found)?);
        torn.extend(found.torn.iter().map(|lost| told(subject, lost)));
    }
    diagnosis.torn = torn;
    Ok(diagnosis)
}

/// Reads a segment; an unsealed one again if something does not check, until that is twice the same.
fn examine(
    ground: &Ground,
    plan: &Plan,
    subject: &Subject,
    keydir: Option<&Keydir>,
) -> Result<Survey> {
    let file = subject.open(ground)?;
    let hash = |key: &[u8]| keydir.map(|keydir| keydir.hash(key)).unwrap_or_default();
    let read = || {
        let hash: Option<&dyn Fn(&[u8]) -> _> = match (keydir, subject.sealed) {
            (Some(_), Some(_)) => Some(&hash),
            _ => None,
        };
        survey(&file, subject, plan.latest, hash, |_| ControlFlow::Continue(()))
    };
    let mut found = read()?;
    for _ in 0..ATTEMPTS {
        if subject.sealed.is_some() || found.lost.is_empty() && found.torn.is_none() {
            break;
        }
        let again = read()?;
        let same = (&again.lost, &again.torn) == (&found.lost, &found.torn);
        found = again;
        if same {
            break;
        }
    }
    Ok(found)
}

fn told(subject: &Subject, lost: &Lost) -> Damage {
    let (bytes, reason) = (&lost.bytes, &lost.reason);
    let size = bytes.end - bytes.start;
    Damage::new(subject.path.clone(), bytes.start, format!("{reason}; {size} bytes can't be read"))
}

/// Tells of entries that this build does not understand: opening may be refused for them.
fn strange(subject: &Subject, found: &Survey) -> Result<Option<Damage>> {
    let Some((offset, invalid, count)) = found.strange else { return Ok(None) };
    let mut damage = damage(refusal(&subject.path, offset, invalid), offset)?;
    damage.reason = format!("{}; there are {count} such entries in this segment", damage.reason);
    Ok(Some(damage))
}

/// Tells of a segment that an unsealed one's end entry names, and that is not there.
fn missing(
    ground: &Ground,
    dir: &Dir,
    plan: &Plan,
    subject: &Subject,
    found: &Survey,
) -> Result<Option<Damage>> {
    let Some(next) = found.next.filter(|_| subject.sealed.is_none() && plan.manifest.is_some())
    else {
        return Ok(None);
    };
    let is_known = plan.subjects.iter().any(|subject| subject.id == next);
    if is_known || ground.fs.open_if_exists(&dir.log(next))?.is_some() {
        return Ok(None);
    }
    let reason =
        format!("the segment is missing, and the end entry of segment {} names it", subject.id);
    Ok(Some(Damage::new(dir.log(next), 0, reason)))
}

/// Compares a hint with what its segment says.
fn compare(ground: &Ground, dir: &Dir, source: Source, built: &Hint) -> Result<Option<Damage>> {
    let path = dir.hint(source.id);
    let reason = if ground.fs.open_if_exists(&path)?.is_none() {
        "the hint is missing; it is built anew when the store is opened"
    } else {
        let hint = HintFile::open(&ground.fs, dir, source);
        let slots = hint.as_ref().and_then(|hint| hint.slots(&ground.fs, &(0..SHARD_COUNT)));
        match (hint, slots) {
            (Some(hint), Some(slots))
                if *hint.summary() == built.summary && slots == built.slots =>
            {
                return Ok(None);
            }
            (Some(_), Some(_)) => {
                "the hint checks, but says something else than its segment; delete it"
            }
            _ => "the hint does not check; it is built anew when the store is opened",
        }
    };
    Ok(Some(Damage::new(path, 0, reason)))
}
