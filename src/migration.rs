//! [async code]: crate::cookbook#async-code

// The target above is the one that counts here; the page's own is for readers of the repository.
// Its code imports, so it is tested only with the feature `import`. It can always be read.
#![cfg_attr(any(not(doctest), feature = "import"), doc = include_str!("../docs/migration.md"))]
#![expect(clippy::doc_markdown, reason = "the names of other systems are no code")]
