//! An object store that checks signatures, in this process, over a folder. Must not know what is stored.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use s3s::{
    S3Request, S3Result, access::S3Access, auth::SimpleAuth, dto::PutObjectInput, service::S3ServiceBuilder,
};
use tokio::sync::oneshot;

/// Who may use it.
pub(crate) const KEY: &str = "gannet";
pub(crate) const SECRET: &str = "gannet-secret";
/// The one bucket.
pub(crate) const BUCKET: &str = "models";

/// The store. It ends with the value, and can be started again over the same folder.
pub(crate) struct S3 {
    folder: tempfile::TempDir,
    pub(crate) address: SocketAddr,
    requests: Arc<AtomicU64>,
    is_careless: bool,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl S3 {
    pub(crate) fn start() -> Self {
        Self::begin(false)
    }

    /// One that overwrites what it is told to write only where there is nothing, as some stores do.
    pub(crate) fn start_careless() -> Self {
        Self::begin(true)
    }

    fn begin(is_careless: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join(BUCKET)).expect("a bucket");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, super::mlflow::free_port()));
        let mut store = Self { folder, address, requests: Arc::default(), is_careless, running: None };
        store.run();
        store
    }

    /// Starts it (again) on its address.
    pub(crate) fn run(&mut self) {
        let (stop, stopped) = oneshot::channel();
        let (root, address, requests) =
            (self.folder.path().to_owned(), self.address, Arc::clone(&self.requests));
        let is_careless = self.is_careless;
        let (listens, listening) = std::sync::mpsc::sync_channel(1);
        let serve = move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(serve((&root, is_careless), address, requests, (stopped, listens)));
        };
        let thread = std::thread::Builder::new().name("s3".into()).spawn(serve).expect("a thread");
        listening.recv().expect("it listens");
        self.running = Some((stop, thread));
    }

    pub(crate) fn stop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            drop(stop);
            let _ = thread.join();
        }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where an object lies.
    pub(crate) fn path(&self, key: &str) -> PathBuf {
        self.folder.path().join(BUCKET).join(key)
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Forgets the condition of a write, once its signature was checked.
struct Careless;

type Checked<'a> = Pin<Box<dyn Future<Output = S3Result<()>> + Send + 'a>>;

impl S3Access for Careless {
    fn put_object<'a, 'b, 'c>(&'a self, request: &'b mut S3Request<PutObjectInput>) -> Checked<'c>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        request.input.if_none_match = None;
        Box::pin(std::future::ready(Ok(())))
    }
}

async fn serve(
    (root, is_careless): (&Path, bool),
    address: SocketAddr,
    requests: Arc<AtomicU64>,
    (mut stopped, listens): (oneshot::Receiver<()>, std::sync::mpsc::SyncSender<()>),
) {
    let files = s3s_fs::FileSystem::new(root).expect("a folder");
    let mut builder = S3ServiceBuilder::new(files);
    builder.set_auth(SimpleAuth::from_single(KEY, SECRET));
    if is_careless {
        builder.set_access(Careless);
    }
    let service = builder.build();
    let listener = tokio::net::TcpListener::bind(address).await.expect("the port is free");
    listens.send(()).expect("somebody waits");
    loop {
        let stream = tokio::select! {
            _ = &mut stopped => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = stream else { continue };
        let (service, requests) = (service.clone(), Arc::clone(&requests));
        let counted = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            requests.fetch_add(1, Ordering::Relaxed);
            let service = service.clone();
            async move { service.call(request.map(s3s::Body::from)).await }
        });
        tokio::spawn(async move {
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), counted)
                .await;
        });
    }
}
