//! A registry of one's own: `cargo run --example custom_registry -- DIR`.
use gemmapod_signal::{Blob, Bytes, PodRecord, Registry, RegistryError, Slug, VerifiedPod, async_trait};
use std::{collections::BTreeSet, io, path::PathBuf, time::SystemTime};
use tokio::fs;

/// Keeps two plain files for each pod.
pub struct Directory(pub PathBuf);

impl Directory {
    fn path(&self, slug: &Slug, kind: &str) -> PathBuf {
        self.0.join(format!("{slug}.{kind}"))
    }

    async fn write(&self, record: &PodRecord) -> Result<(), RegistryError> {
        let json = serde_json::to_vec(record).map_err(RegistryError::failed)?;
        fs::write(self.path(&record.slug, "new"), json).await?;
        Ok(fs::rename(self.path(&record.slug, "new"), self.path(&record.slug, "json")).await?)
    }
}

fn if_there<T>(result: io::Result<T>) -> Result<Option<T>, RegistryError> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => Ok(Some(other?)),
    }
}

#[async_trait]
impl Registry for Directory {
    fn name(&self) -> &str {
        "directory"
    }

    async fn put_pod(&self, pod: VerifiedPod) -> Result<(), RegistryError> {
        fs::write(self.path(&pod.record().slug, "html"), pod.blob()).await?;
        self.write(pod.record()).await
    }

    async fn get_record(&self, slug: &Slug) -> Result<Option<PodRecord>, RegistryError> {
        let json = if_there(fs::read(self.path(slug, "json")).await)?;
        json.map(|json| serde_json::from_slice(&json)).transpose().map_err(RegistryError::failed)
    }

    async fn get_blob(&self, slug: &Slug) -> Result<Option<Blob>, RegistryError> {
        Ok(if_there(fs::read(self.path(slug, "html")).await)?.map(|html| Bytes::from(html).into()))
    }

    async fn bump_hits(&self, hits: &[(Slug, u64)], _: SystemTime) -> Result<(), RegistryError> {
        for (slug, more) in hits {
            if let Some(record) = self.get_record(slug).await? {
                self.write(&PodRecord { hits: record.hits + more, ..record }).await?;
            }
        }
        Ok(())
    }

    async fn delete(&self, slug: &Slug) -> Result<bool, RegistryError> {
        if_there(fs::remove_file(self.path(slug, "html")).await)?;
        Ok(if_there(fs::remove_file(self.path(slug, "json")).await)?.is_some())
    }

    async fn list(&self, after: Option<&Slug>, limit: usize) -> Result<Vec<PodRecord>, RegistryError> {
        let (mut slugs, mut page, mut files) = (BTreeSet::new(), Vec::new(), fs::read_dir(&self.0).await?);
        while let Some(file) = files.next_entry().await? {
            slugs.extend(file.path().file_stem().and_then(|stem| stem.to_str()?.parse::<Slug>().ok()));
        }
        for slug in slugs.iter().filter(|slug| after.is_none_or(|after| *slug > after)).take(limit) {
            page.extend(self.get_record(slug).await?);
        }
        Ok(page)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = PathBuf::from(std::env::args().nth(1).unwrap_or("pods".into()));
    fs::create_dir_all(&directory).await?;
    Ok(gemmapod_signal::SignalServer::builder().registry(Directory(directory)).bind().await?.serve().await?)
}
