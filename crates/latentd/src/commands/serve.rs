//! `latentd serve`: the service, from its configuration to its last job.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ldm_core::{Failure, FailureKind};
use ldm_engine::{Readiness, Service, Worker};
use ldm_http::{Admin, App, Metrics, Otlp};
use ldm_pipeline::{DeviceExecutor, LoadOptions};
use tokio::net::TcpListener;
use tokio::signal::unix::Signal;

use super::guards::Guards;
use super::named;
use super::served::Served;
use crate::config::{Config, File, Flag, Sources, environment, print, resolve};
use crate::exit::{Usage, at_once};
use crate::signals::{Signals, hangups};
use crate::telemetry;

/// Beyond the grace: the step that was under way, and the last answers on their way out.
const AFTER_GRACE: Duration = Duration::from_secs(10);
/// How often the file of keys is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Arguments of `latentd serve`. A flag beats its environment variable, that the file, that the default.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration file; config/latentd.toml shows every setting.
    #[arg(long, value_name = "FILE", env = "LATENTD_CONFIG")]
    config: Option<PathBuf>,
    /// A model to serve, instead of the configured ones; may be given several times, the first is the default.
    #[arg(long = "model", value_name = "ID=DIR")]
    models: Vec<String>,
    /// Where to listen; port 0 takes a free one.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// Where the models live: cpu or cuda:N.
    #[arg(long)]
    device: Option<String>,
    /// Number format of the networks: f32, bf16 or f16.
    #[arg(long)]
    dtype: Option<String>,
    /// Threads that compute on a CPU; 0 leaves the choice to libtorch.
    #[arg(long, value_name = "N")]
    threads: Option<String>,
    /// text or json.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Pictures that may be unfinished at once.
    #[arg(long, value_name = "N")]
    queue: Option<String>,
    /// Print the configuration in force, as a file, and end.
    #[arg(long)]
    print_config: bool,
}

impl Args {
    fn flags(&self) -> Vec<Flag> {
        let models = (!self.models.is_empty()).then(|| self.models.join(","));
        let flags = [
            ("--model", "models", models.as_ref()),
            ("--listen", "server.listen", self.listen.as_ref()),
            ("--device", "device.device", self.device.as_ref()),
            ("--dtype", "device.dtype", self.dtype.as_ref()),
            ("--threads", "device.threads", self.threads.as_ref()),
            ("--log-format", "log.format", self.log_format.as_ref()),
            ("--queue", "engine.queue", self.queue.as_ref()),
        ];
        let given = flags.into_iter().filter_map(|(flag, setting, value)| Some(Flag { flag, setting, value: value?.clone() }));
        given.collect()
    }

    fn configuration(&self) -> Result<Config> {
        let name = self.config.as_ref().map(|path| path.display().to_string()).filter(|name| !name.is_empty());
        let text = name.as_deref().map(|name| std::fs::read_to_string(name).map_err(|error| Usage(format!("{name}: {error}"))));
        let text = text.transpose()?;
        let file = name.as_deref().zip(text.as_deref()).map(|(name, text)| File { name, text });
        let sources = Sources { file, environment: environment(), flags: self.flags() };
        resolve(&sources).map_err(|problems| Usage(problems.to_string()).into())
    }
}

/// Serves until a signal ends it.
pub(super) fn run(args: Args) -> Result<ExitCode> {
    let config = args.configuration()?;
    if args.print_config {
        std::io::stdout().write_all(print(&config).as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(problem) = config.problem() {
        return Err(Usage(problem).into());
    }
    let guards = Guards::of(&config)?;
    let endpoint = Some(config.telemetry.otlp_endpoint.as_str()).filter(|endpoint| !endpoint.is_empty());
    let otlp = endpoint.map(Otlp::new).transpose()?;
    telemetry::start(config.log.format, &config.log.filter, otlp.as_ref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(serve(&config, args, guards, otlp.as_ref()));
    if let Some(otlp) = otlp {
        otlp.shutdown();
    }
    // A picture that is still being encoded has nobody left to go to.
    runtime.shutdown_background();
    Ok(match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    })
}

async fn serve(config: &Config, args: Args, guards: Guards, otlp: Option<&Otlp>) -> Result<()> {
    // Before anything that takes time, so that no signal is missed.
    let (signals, hangups) = (Signals::new()?, hangups()?);
    let listen = config.server.listen;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let address = listener.local_addr()?;
    tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "listening");
    guards.say(config);

    let metrics = Arc::new(Metrics::new());
    let service = Service::pool(config.engine_limits(), Arc::clone(&metrics) as _, workers(config));
    let app = App::new(service.clone(), metrics).limits(config.http_limits()).connections(config.connection_limits());
    let app = guards.before(app, config);
    let app = app.origins(&config.server.cors_origins).map_err(|error| Usage(format!("server.cors_origins: {error}")))?;
    let app = app.named(named::node(config, &service)?);
    let mut app = app.webhooks(&named::webhooks(config)?).map_err(|error| Usage(format!("webhooks: {error}")))?;
    let served = Arc::new(Served::new(service.clone(), &config.models));
    if config.has_admin() {
        app = app.admin(Admin::new(Arc::clone(&served) as _, config.admin_token()));
    }
    if let Some(otlp) = otlp {
        app = app.traced(otlp);
    }
    let watching = guards.keys.clone().map(|keys| tokio::spawn(keys.follow(LOOK)));
    let line = curl(address, &guards);
    let following = tokio::spawn(follow(hangups, args, served, guards));

    let stop = stop(signals, service.clone(), config.grace());
    let mut server = std::pin::pin!(ldm_http::serve(listener, app, stop, config.grace()));
    let ready = tokio::select! {
        ended = &mut server => Some(ended),
        ready = service.wait_ready() => {
            match (ready, service.readiness()) {
                (Err(reason), Readiness::Failed(_)) => {
                    // The device thread ends by itself; without it no destructor comes in its way.
                    service.drain(Duration::ZERO).await;
                    bail!("the models cannot be served: {reason}");
                }
                (Err(_), _) => {}
                (Ok(_), _) => tracing::info!(%address, "ready; try: {line}"),
            }
            None
        }
    };
    let ended = match ready {
        Some(ended) => ended,
        None => server.await,
    };
    following.abort();
    watching.into_iter().for_each(|watching| watching.abort());
    if let Err(error) = ended {
        service.drain(Duration::ZERO).await;
        return Err(error).context("the server ended");
    }
    tracing::info!("stopped");
    Ok(())
}

/// At every SIGHUP reads the configuration again, and has its models served; and the files of the guards. One that is wrong
/// changes nothing.
async fn follow(mut hangups: Signal, args: Args, served: Arc<Served>, guards: Guards) {
    while hangups.recv().await.is_some() {
        guards.refresh();
        match args.configuration() {
            Ok(config) => served.follow(&config.models).await,
            Err(error) => tracing::error!("SIGHUP: the configuration is not taken over: {error:#}"),
        }
    }
}

/// One worker for each device. Those on the same device are told apart by a number.
fn workers(config: &Config) -> Vec<Worker<DeviceExecutor>> {
    let mut known: Vec<String> = Vec::new();
    let worker = |options: LoadOptions| {
        let device = options.device.to_string();
        let twins = known.iter().filter(|other| **other == device).count();
        known.push(device.clone());
        let name = if twins == 0 { device } else { format!("{device}#{}", twins + 1) };
        let models = config.models.clone();
        Worker::new(name, move || {
            DeviceExecutor::load(&models, &options).map_err(|error| Failure::new(FailureKind::Device, error.to_string()))
        })
    };
    config.placements().into_iter().map(worker).collect()
}

/// A line for a shell that makes a picture.
fn curl(mut address: SocketAddr, guards: &Guards) -> String {
    match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    let scheme = if guards.tls.is_some() { "https" } else { "http" };
    let key = if guards.keys.is_some() { "-H 'authorization: Bearer <key>' " } else { "" };
    format!(
        "curl -sS {scheme}://{address}/v1/txt2img {key}-H 'content-type: application/json' -H 'accept: image/png' \
         -d '{{\"prompt\": \"a large red circle on a white background\"}}' -o picture.png"
    )
}

/// Waits for the first signal. From then on a second one ends the process at once, and so does a step that outlasts the
/// grace by far. While the models are still being loaded there is nothing to wait for.
async fn stop(mut signals: Signals, service: Service, grace: Duration) {
    let (signal, _) = signals.next().await;
    tracing::info!(signal, load = ?service.load(), "stopping; a second signal ends the process at once");
    if matches!(service.readiness(), Readiness::Loading | Readiness::WarmingUp) {
        at_once(0);
    }
    tokio::spawn(async move {
        tokio::select! {
            (signal, code) = signals.next() => {
                tracing::warn!(signal, "ending at once");
                at_once(code);
            }
            () = tokio::time::sleep(grace + AFTER_GRACE) => {
                tracing::warn!("the device is still at work long after the grace; ending without it");
                at_once(0);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::{Guards, curl};

    #[test]
    fn the_line_to_try_goes_where_a_client_can_go() {
        for (address, host) in
            [("0.0.0.0:1", "http://127.0.0.1:1/"), ("[::]:2", "http://[::1]:2/"), ("10.0.0.1:3", "http://10.0.0.1:3/")]
        {
            let line = curl(address.parse().unwrap(), &Guards { keys: None, tls: None });
            assert!(line.contains(host), "{line}");
        }
    }
}
