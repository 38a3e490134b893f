//! Control: one thread that plans, applies and answers.
//!
//! A tokio runtime on the calling thread holds everything: the HTTP server ([`http`]), the notices of the
//! broker, of the workers and of the services, and the engine's clock ([`engine`]). The engine is behind one lock; whoever
//! has it is alone, and keeps it for some milliseconds at most. With nothing to do the thread sleeps without
//! a timeout.

pub mod engine;
pub mod http;

use crate::broker::BrokerClient;
use crate::broker::channel::{self, ChannelError};
use crate::broker::messages::{Hello, Notice as BrokerNotice};
use crate::services::{self, Intake, ServiceNotice, ServiceOptions};
use crate::worker::command::{Command, Notice as WorkerNotice};
use crate::worker::{self, Handle, Options};
use anyhow::Context as _;
use engine::means::Means;
use engine::system::{BrokerFiles, Desk, Tapes};
use engine::{Engine, Process, Seed, Shared, Start};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;
use switchd_capture::writer::{Writer, WriterHandle};
use switchd_store::Store;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{Mutex, mpsc, oneshot};

/// Notices of workers that may wait. Beyond it they are lost, and every device is looked at instead.
const WORKER_NOTICES: usize = 8192;

/// Notices of the services that may wait. An outside lease that is lost here is told again with its renewal.
const SERVICE_NOTICES: usize = 1024;

/// What the dataplane process was started with, after it gave up its privileges.
pub struct Context {
    pub hello: Hello,
    pub broker: BrokerClient,
    /// The broker's second socket.
    pub notices: OwnedFd,
    /// The control socket.
    pub listener: UnixListener,
    /// Text of the `--config` file.
    pub seed: Option<String>,
    /// Parts of the sandbox that hold.
    pub sandbox: Vec<String>,
    /// The nice value to go back to, where the process could be hastened for the capture writer's sake.
    pub niceness: Option<i32>,
}

/// Runs until the broker says to end, or is gone.
///
/// # Errors
/// The saved state is damaged, the `--config` file is wrong, or the system has no threads to give.
pub fn run(context: Context) -> anyhow::Result<()> {
    let Context { hello, broker, notices, listener, seed, sandbox, niceness } = context;
    let options = &hello.options;
    // The writer's thread keeps the priority that we have now, all others go back.
    let writer = Writer::spawn(Box::new(BrokerFiles(broker.clone()))).context("the capture writer")?;
    if let Some(niceness) = niceness {
        let _ = rustix::process::setpriority_process(None, niceness);
    }
    let (sender, worker_notices) = mpsc::channel(WORKER_NOTICES);
    let missed = Arc::new(AtomicBool::new(false));
    let (service_sender, service_notices) = mpsc::channel(SERVICE_NOTICES);
    let tell = Box::new(move |notice| {
        if service_sender.try_send(notice).is_err() {
            tracing::warn!("a notice of the services was lost");
        }
    });
    // The process stands in it; its user may not be allowed to walk there.
    let here = Path::new(".");
    let state = ServiceOptions { state_dir: here.to_owned(), state_name: options.state_dir.clone() };
    let (services, services_thread) = services::spawn(state, tell).context("the services of NAT networks")?;
    let (workers, threads) = start_workers(&hello, &sender, &missed, &services.intake())?;
    let (store, loaded) = Store::open_as(here, &options.state_dir)?;
    let seed = seed.map(|text| Seed {
        name: options.config.as_ref().map_or_else(String::new, |path| path.display().to_string()),
        text,
    });
    let means = Means {
        broker: Box::new(broker.clone()),
        workers: Box::new(workers.clone()),
        captures: Box::new(Tapes::new(writer.clone())),
        services: Box::new(Desk { services: services.clone(), workers: workers.clone() }),
        disk: Box::new(store),
        clock: Box::new(Instant::now),
    };
    let process = Process {
        broker_pid: hello.broker_pid,
        restarts: hello.restarts,
        started: hello.started,
        began: Instant::now(),
        rootless: hello.rootless,
        state_dir: options.state_dir.clone(),
        capture_dir: options.capture_dir.clone(),
        sandbox,
    };
    let start = Start { means, process, saved: loaded.desired, warnings: loaded.warnings, seed };
    let engine = Engine::start(start).map_err(|error| anyhow::anyhow!(explained(&error)))?;
    let engine: Shared = Arc::new(Mutex::new(engine));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let notices = Notices { broker: notices, workers: worker_notices, services: service_notices, missed };
    let served = runtime.block_on(serve(&hello, &broker, engine.clone(), listener, notices));
    // Streams that outlive the server hold the engine; its threads end all the same.
    drop(runtime);
    drop(engine);
    // The services first: what they say at their end still leaves by the workers.
    services.stop();
    if services_thread.join().is_err() {
        tracing::error!("the services ended by a panic");
    }
    end(&workers, threads, &writer);
    served
}

fn start_workers(
    hello: &Hello,
    notices: &mpsc::Sender<WorkerNotice>,
    missed: &Arc<AtomicBool>,
    intake: &Intake,
) -> anyhow::Result<(Vec<Handle>, Vec<JoinHandle<()>>)> {
    let options = &hello.options;
    let (mut workers, mut threads) = (Vec::new(), Vec::new());
    for index in 0..options.workers.max(1) {
        let cpu = (!options.cpus.is_empty()).then(|| options.cpus[index % options.cpus.len()]);
        let (notices, missed) = (notices.clone(), missed.clone());
        let tell = Box::new(move |notice| {
            if notices.try_send(notice).is_err() {
                missed.store(true, Ordering::Relaxed);
            }
        });
        let intake = intake.clone();
        let serve = Box::new(move |frame| intake.offer(frame));
        let options = Options { index, cpu, busy_poll: options.busy_poll };
        let (handle, thread) = worker::spawn_with(options, tell, serve)
            .with_context(|| format!("worker {index} could not be started"))?;
        workers.push(handle);
        threads.push(thread);
    }
    Ok((workers, threads))
}

/// Workers first: what they captured is then in the rings, and is written out.
fn end(workers: &[Handle], threads: Vec<JoinHandle<()>>, writer: &WriterHandle) {
    for worker in workers {
        // One that has ended already needs no telling.
        let _ = worker.run(Command::Stop);
    }
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a worker ended by a panic");
        }
    }
    writer.stop();
}

/// The message with its report, which has the hint in it, or with the hint; for whoever starts the daemon.
fn explained(error: &switchd_api::reply::ErrorBody) -> String {
    let more = error.report.clone().or_else(|| Some(format!("try: {}", error.hint.as_ref()?)));
    more.map_or_else(|| error.message.clone(), |more| format!("{}\n{more}", error.message))
}

fn policy(hello: &Hello) -> http::Policy {
    let crate::broker::messages::SocketAccess { owner, group, mode } = hello.socket;
    http::Policy { owner, group, mode }
}

/// From where control hears of things by themselves.
struct Notices {
    broker: OwnedFd,
    workers: mpsc::Receiver<WorkerNotice>,
    services: mpsc::Receiver<ServiceNotice>,
    /// Notices of workers were lost.
    missed: Arc<AtomicBool>,
}

async fn serve(
    hello: &Hello,
    broker: &BrokerClient,
    engine: Shared,
    listener: UnixListener,
    mut from: Notices,
) -> anyhow::Result<()> {
    let notices = notice_socket(from.broker).context("the broker's notices")?;
    let limits = http::Limits::DEFAULT;
    let router = http::router(http::App::new(engine.clone(), policy(hello), limits));
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async { stopped.await.unwrap_or_default() };
    let mut server = tokio::spawn(http::serve(listener, router, limits, stopped));
    broker.ready()?;
    let wake = engine.lock().await.wake();
    loop {
        let deadline = engine.lock().await.next_deadline();
        // What waits here may be given up at any await; what was taken is then handled to its end, in the arm.
        tokio::select! {
            () = until(deadline) => engine.lock().await.tick(Instant::now()),
            () = wake.notified() => {}
            Some(notice) = from.workers.recv() => {
                let mut engine = engine.lock().await;
                engine.on_worker_notice(notice);
                if from.missed.swap(false, Ordering::Relaxed) {
                    engine.look_at_devices();
                }
            }
            Some(notice) = from.services.recv() => engine.lock().await.on_service_notice(notice),
            readable = notices.readable() => {
                if readable.is_err() || read_notices(&notices, &engine).await {
                    break;
                }
            }
            ended = &mut server => {
                return ended.context("the control socket's server")?.context("the control socket");
            }
        }
    }
    // It ends by itself when the receiver is gone.
    let _ = stop.send(());
    server.await.context("the control socket's server")?.context("the control socket")
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// Tokio watches it as it would a stream; messages are read whole, by [`channel`].
fn notice_socket(socket: OwnedFd) -> std::io::Result<UnixStream> {
    let socket = std::os::unix::net::UnixStream::from(socket);
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}

/// Hands on what the broker has to say. True: it is time to end. Not to be given up half-way: a notice that
/// was read would be lost.
async fn read_notices(socket: &UnixStream, engine: &Shared) -> bool {
    loop {
        let received =
            socket.try_io(Interest::READABLE, || match channel::receive::<BrokerNotice>(socket, false) {
                Err(ChannelError::WouldBlock) => Err(ErrorKind::WouldBlock.into()),
                other => Ok(other),
            });
        match received {
            Ok(Ok((BrokerNotice::End, _))) => return true,
            Ok(Ok((notice, _))) => engine.lock().await.on_broker_notice(notice),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Ok(Err(error)) => {
                tracing::info!("the broker is gone ({error}): ending");
                return true;
            }
            Err(error) => {
                tracing::error!("the broker's notices cannot be read ({error}): ending");
                return true;
            }
        }
    }
}
