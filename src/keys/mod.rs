//! API keys: who may send pulses for whom. What is kept of a key is its SHA-256, never the key itself.

pub mod file;
pub mod ring;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use crate::keys::file::KeysError;
use crate::keys::ring::{Grant, KeyRing};

/// The keys that are valid now. A cheap handle; all handles see a reload.
#[derive(Clone, Default)]
pub struct ApiKeys(Option<Arc<Loaded>>);

struct Loaded {
    path: PathBuf,
    ring: RwLock<Arc<KeyRing>>,
}

impl ApiKeys {
    /// No file, so no key is asked for.
    pub fn open() -> Self {
        ApiKeys(None)
    }

    /// Reads the keys of a file.
    ///
    /// # Errors
    /// The file can't be read, or a line of it is no key's.
    pub fn load(path: &Path) -> Result<Self, KeysError> {
        let ring = RwLock::new(Arc::new(file::load(path)?));
        Ok(ApiKeys(Some(Arc::new(Loaded { path: path.to_owned(), ring }))))
    }

    /// Whether requests need a key.
    pub fn are_required(&self) -> bool {
        self.0.is_some()
    }

    /// How many keys are valid.
    pub fn count(&self) -> usize {
        self.0.as_ref().map_or(0, |loaded| loaded.ring().len())
    }

    /// What this key allows, if it is valid.
    pub fn find(&self, key: &str) -> Option<Arc<Grant>> {
        self.0.as_ref()?.ring().find(key)
    }

    /// Reads the file again. Returns how many keys are valid from now on.
    ///
    /// # Errors
    /// As [`ApiKeys::load`]; the keys are then the same as before.
    pub fn reload(&self) -> Result<usize, KeysError> {
        let Some(loaded) = &self.0 else { return Ok(0) };
        let ring = file::load(&loaded.path)?;
        let count = ring.len();
        *loaded.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring);
        Ok(count)
    }
}

impl Loaded {
    fn ring(&self) -> Arc<KeyRing> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::ring::{KeyRecord, new_key};

    #[test]
    fn every_handle_sees_a_reload_and_none_a_broken_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let (first, second) = (new_key().unwrap(), new_key().unwrap());
        file::add(&path, &KeyRecord::new("first", first.expose())).unwrap();
        let keys = ApiKeys::load(&path).unwrap();
        let handle = keys.clone();
        assert!(handle.find(first.expose()).is_some() && handle.find(second.expose()).is_none());
        file::add(&path, &KeyRecord::new("second", second.expose())).unwrap();
        assert!(file::remove(&path, "first").unwrap());
        assert_eq!(keys.reload().unwrap(), 1);
        assert!(handle.find(first.expose()).is_none() && handle.find(second.expose()).is_some());
        std::fs::write(&path, "{").unwrap();
        assert!(keys.reload().is_err());
        assert_eq!(handle.count(), 1);
        assert!(handle.find(second.expose()).is_some());
    }

    #[test]
    fn without_a_file_nothing_is_asked_for() {
        let keys = ApiKeys::open();
        assert!(!keys.are_required());
        assert_eq!((keys.count(), keys.reload().unwrap()), (0, 0));
    }
}
