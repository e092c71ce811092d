//! Keeping up with a folder: which objects came, changed and went.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::parse::parse;
use crate::object::{Object, ObjectKey, Rejected, Source};

/// What changed in the folder between two looks at it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delta {
    /// Objects that are new, or whose file was written.
    pub applied: Vec<Object>,
    /// Objects that no file holds any more.
    pub removed: Vec<ObjectKey>,
    /// What was refused in the files that were read this time.
    pub rejected: Vec<Rejected>,
}

/// A folder, and what it held when last looked at. Only files whose inode,
/// size or time changed are read again.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    files: BTreeMap<PathBuf, Known>,
    owners: HashMap<ObjectKey, PathBuf>,
}

#[derive(Debug)]
struct Known {
    stamp: Stamp,
    keys: HashSet<ObjectKey>,
    /// It holds an object that an earlier file holds too, so it is read again
    /// whenever something changes.
    shadowed: bool,
}

type Stamp = (u64, u64, Option<SystemTime>);

impl Folder {
    /// A folder of which nothing has been read yet.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            files: BTreeMap::new(),
            owners: HashMap::new(),
        }
    }

    /// The folder's path.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Reads what changed since the last call; the first call reads it all.
    ///
    /// # Errors
    /// Only if the folder itself cannot be listed. A file that cannot be read
    /// is in [`Delta::rejected`], and what it held before stays.
    pub fn refresh(&mut self) -> io::Result<Delta> {
        let mut delta = Delta::default();
        let mut found = BTreeMap::new();
        list(&self.root, &mut found)?;

        let gone: Vec<_> = self
            .files
            .keys()
            .filter(|path| !found.contains_key(*path))
            .cloned()
            .collect();
        let mut lost = BTreeSet::new();
        for path in gone {
            let known = self.files.remove(&path).expect("listed a line above");
            lost.extend(known.keys);
        }
        let changed: Vec<_> = found
            .iter()
            .filter(|(path, stamp)| self.files.get(*path).is_none_or(|k| k.stamp != **stamp))
            .map(|(path, _)| path.clone())
            .collect();
        if lost.is_empty() && changed.is_empty() {
            return Ok(delta);
        }
        for key in &lost {
            self.owners.remove(key);
        }
        for path in &changed {
            self.read(path, found[path], &mut lost, &mut delta);
        }
        if !lost.is_empty() {
            let shadowed: Vec<_> = self
                .files
                .iter()
                .filter(|(_, k)| k.shadowed)
                .map(|(p, _)| p.clone())
                .collect();
            for path in shadowed {
                self.read(&path, found[&path], &mut lost, &mut delta);
            }
        }
        delta.removed = lost
            .into_iter()
            .filter(|key| !self.owners.contains_key(key))
            .collect();
        Ok(delta)
    }

    fn read(
        &mut self,
        path: &Path,
        stamp: Stamp,
        lost: &mut BTreeSet<ObjectKey>,
        delta: &mut Delta,
    ) {
        let before = self
            .files
            .remove(path)
            .map(|known| known.keys)
            .unwrap_or_default();
        let parsed = match fs::read_to_string(path) {
            Ok(text) => parse(path, &text),
            Err(error) => {
                delta.rejected.push(Rejected {
                    at: Source {
                        file: path.to_owned(),
                        line: 1,
                    },
                    object: None,
                    field: String::new(),
                    problem: format!("cannot be read: {error}"),
                    mend: "make it a readable UTF-8 text file".to_owned(),
                });
                self.files.insert(
                    path.to_owned(),
                    Known {
                        stamp,
                        keys: before,
                        shadowed: false,
                    },
                );
                return;
            }
        };
        let mut known = Known {
            stamp,
            keys: HashSet::new(),
            shadowed: false,
        };
        let intact = parsed.rejected.is_empty();
        delta.rejected.extend(parsed.rejected);
        for object in parsed.objects {
            match self.owners.get(&object.key) {
                Some(owner) if owner != path || known.keys.contains(&object.key) => {
                    known.shadowed |= owner != path;
                    delta.rejected.push(object.reject(
                        "metadata.name",
                        format!("the same object stands in {} already", owner.display()),
                        "remove one of the two, or rename it",
                    ));
                }
                _ => {
                    self.owners.insert(object.key.clone(), path.to_owned());
                    known.keys.insert(object.key.clone());
                    delta.applied.push(object);
                }
            }
        }
        for key in before {
            if known.keys.contains(&key) {
                continue;
            }
            if intact {
                self.owners.remove(&key);
                lost.insert(key);
            } else {
                known.keys.insert(key);
            }
        }
        self.files.insert(path.to_owned(), known);
    }
}

/// Every manifest below `folder`, with what tells whether it changed.
fn list(folder: &Path, found: &mut BTreeMap<PathBuf, Stamp>) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        // A file may go between the listing and the look: that is no error.
        let Ok(meta) = fs::metadata(&path) else {
            continue;
        };
        if meta.is_dir() {
            match list(&path, found) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        } else if path
            .extension()
            .is_some_and(|e| e == "yaml" || e == "yml" || e == "json")
        {
            found.insert(path, (meta.ino(), meta.len(), meta.modified().ok()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> String {
        format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\n")
    }

    fn put(root: &Path, name: &str, text: &str) {
        fs::write(root.join(".new"), text).unwrap();
        fs::rename(root.join(".new"), root.join(name)).unwrap();
    }

    fn names(delta: &Delta) -> (Vec<String>, Vec<String>, usize) {
        let applied = delta.applied.iter().map(|o| o.key.name.clone()).collect();
        let removed = delta.removed.iter().map(|k| k.name.clone()).collect();
        (applied, removed, delta.rejected.len())
    }

    fn told(
        applied: &[&str],
        removed: &[&str],
        rejected: usize,
    ) -> (Vec<String>, Vec<String>, usize) {
        let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        (own(applied), own(removed), rejected)
    }

    #[test]
    fn tells_what_came_changed_and_went() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = Folder::new(dir.path());
        put(
            dir.path(),
            "a.yaml",
            &format!("{}---\n{}", pod("a"), pod("b")),
        );
        assert_eq!(names(&folder.refresh().unwrap()), told(&["a", "b"], &[], 0));
        assert_eq!(names(&folder.refresh().unwrap()), told(&[], &[], 0));
        put(dir.path(), "a.yaml", &pod("b"));
        assert_eq!(names(&folder.refresh().unwrap()), told(&["b"], &["a"], 0));
        fs::remove_file(dir.path().join("a.yaml")).unwrap();
        assert_eq!(names(&folder.refresh().unwrap()), told(&[], &["b"], 0));
    }

    #[test]
    fn a_broken_edit_takes_away_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = Folder::new(dir.path());
        put(
            dir.path(),
            "a.yaml",
            &format!("{}---\n{}", pod("a"), pod("b")),
        );
        folder.refresh().unwrap();
        put(dir.path(), "a.yaml", &format!("{}---\nkind: [", pod("a")));
        assert_eq!(names(&folder.refresh().unwrap()), told(&["a"], &[], 1));
        put(dir.path(), "a.yaml", &pod("a"));
        assert_eq!(names(&folder.refresh().unwrap()), told(&["a"], &["b"], 0));
    }

    #[test]
    fn an_object_in_two_files_is_taken_from_the_first_until_that_goes() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = Folder::new(dir.path());
        put(dir.path(), "a.yaml", &pod("a"));
        put(dir.path(), "b.yaml", &pod("a"));
        let first = folder.refresh().unwrap();
        assert_eq!(names(&first), told(&["a"], &[], 1));
        assert!(
            first.rejected[0]
                .to_string()
                .contains("a.yaml already; remove one")
        );
        fs::remove_file(dir.path().join("a.yaml")).unwrap();
        assert_eq!(names(&folder.refresh().unwrap()), told(&["a"], &[], 0));
    }

    #[test]
    fn a_moved_object_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = Folder::new(dir.path());
        put(dir.path(), "a.yaml", &pod("a"));
        folder.refresh().unwrap();
        fs::rename(dir.path().join("a.yaml"), dir.path().join("b.yaml")).unwrap();
        assert_eq!(names(&folder.refresh().unwrap()), told(&["a"], &[], 0));
    }
}
