//! Images: names, an id, and a few files to look into.

use std::collections::BTreeMap;
use std::io::{Read, Seek};

use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::World;
use crate::provider::{
    BuildEvent, BuildSpec, Error, ImageId, ImageInfo, Look, NamedImage, PathKind, Peeked, RUN_BYTES, Result,
};

/// No context of a test is longer.
const MAX_CONTEXT: u64 = RUN_BYTES;
/// What an image of a distribution has, and a guest's mounts go through.
const DIRECTORIES: [&str; 9] = ["/", "/bin", "/dev", "/etc", "/home", "/proc", "/run", "/sys", "/tmp"];

/// An image of the fake: what it says, and what lies in it.
#[derive(Debug, Clone)]
pub struct Image {
    pub info: ImageInfo,
    /// By their absolute paths; the directories above them are there too.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Image {
    /// Like a small distribution with OpenSSH's server; its id is made from `seed`.
    pub fn base(seed: &[u8]) -> Self {
        let id = Sha256::digest(seed).iter().fold("sha256:".to_owned(), |id, byte| id + &format!("{byte:02x}"));
        let info = ImageInfo {
            id: ImageId(id),
            names: Vec::new(),
            user: String::new(),
            env: vec!["PATH=/usr/local/bin:/usr/bin:/bin".to_owned()],
            working_dir: String::new(),
            volumes: Vec::new(),
            on_build: Vec::new(),
            labels: BTreeMap::new(),
            architecture: if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }.to_owned(),
        };
        let files = [
            ("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
            ("/etc/group", "root:x:0:\n"),
            ("/bin/sh", ""),
            ("/usr/sbin/sshd", ""),
        ];
        let files = files.into_iter().map(|(path, content)| (path.to_owned(), content.into())).collect();
        Self { info, files }
    }

    pub(super) fn peek(&self, looks: &[Look<'_>]) -> Result<Vec<Peeked>> {
        looks
            .iter()
            .map(|look| {
                let Some(file) = self.files.get(look.path()) else {
                    return Ok(Peeked { kind: self.kind(look.path()), content: None });
                };
                let content = match look {
                    Look::At(_) => None,
                    Look::Into(path) if file.len() > Peeked::MAX_FILE => {
                        let why = format!("it is longer than {} bytes", Peeked::MAX_FILE);
                        return Err(Error::Refused { what: format!("the image's {path}"), why });
                    }
                    Look::Into(_) => Some(file.clone()),
                };
                Ok(Peeked { kind: PathKind::File, content })
            })
            .collect()
    }

    fn kind(&self, path: &str) -> PathKind {
        let beneath = format!("{}/", path.trim_end_matches('/'));
        if DIRECTORIES.contains(&path) || self.files.keys().any(|file| file.starts_with(&beneath)) {
            PathKind::Directory
        } else {
            PathKind::Missing
        }
    }
}

/// All images, by their ids.
#[derive(Debug)]
pub(super) struct Images(BTreeMap<String, Image>);

impl Images {
    pub fn new() -> Self {
        Self(BTreeMap::new())
    }

    pub fn add(&mut self, image: Image) {
        self.0.insert(image.info.id.0.clone(), image);
    }

    /// By an id or a name.
    pub fn find(&self, reference: &str) -> Result<&Image> {
        self.0
            .get(reference)
            .or_else(|| self.0.values().find(|image| image.info.names.iter().any(|name| name == reference)))
            .ok_or_else(|| Error::NoSuchImage { reference: reference.to_owned() })
    }

    /// A name is of one image.
    pub fn tag(&mut self, id: &str, name: &str) -> Result<()> {
        let id = self.find(id)?.info.id.0.clone();
        for image in self.0.values_mut() {
            image.info.names.retain(|other| other != name);
        }
        if let Some(image) = self.0.get_mut(&id) {
            image.info.names.push(name.to_owned());
        }
        Ok(())
    }

    pub fn named(&self, prefix: &str) -> Vec<NamedImage> {
        let names = self.0.values().flat_map(|image| &image.info.names);
        let named = names.filter(|name| name.starts_with(prefix));
        named.map(|name| NamedImage { name: name.clone(), bytes: 1 }).collect()
    }

    pub fn remove(&mut self, reference: &str) {
        if self.0.remove(reference).is_some() {
            return;
        }
        let named = |image: &&mut Image| image.info.names.iter().any(|name| name == reference);
        let Some(image) = self.0.values_mut().find(named) else { return };
        image.info.names.retain(|name| name != reference);
        if image.info.names.is_empty() {
            let id = image.info.id.0.clone();
            self.0.remove(&id);
        }
    }
}

/// The same input gives the same image; the second time it is cached.
pub(super) async fn build(world: &World, mut build: BuildSpec, progress: &mpsc::Sender<BuildEvent>) -> Result<ImageId> {
    let failed = |error: std::io::Error| Error::Engine { doing: "reading a context", message: error.to_string() };
    let mut context = Vec::new();
    build.context.rewind().map_err(failed)?;
    build.context.take(MAX_CONTEXT).read_to_end(&mut context).map_err(failed)?;
    context.extend_from_slice(format!("{:?}{:?}{:?}", build.dockerfile, build.target, build.args).as_bytes());
    let mut image = Image::base(&context);
    image.info.labels = build.labels;
    let id = image.info.id.clone();
    let cached = world.images(|images| images.find(&id.0).is_ok()) && !build.no_cache;

    let (step, name) = (1, format!("build {}", build.dockerfile));
    let events = if cached {
        vec![BuildEvent::Cached { step, name }]
    } else {
        let log = BuildEvent::Log { step, line: "nothing is really built".to_owned() };
        vec![BuildEvent::Started { step, name }, log, BuildEvent::Done { step, elapsed_ms: 1 }]
    };
    for event in events {
        // Whoever listens may have gone; the build goes on.
        let _nobody_listens = progress.send(event).await;
    }
    world.images(|images| {
        if !cached {
            images.add(image);
        }
        images.tag(&id.0, &build.tag)
    })?;
    Ok(id)
}
