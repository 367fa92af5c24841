//! `chowki run`: the gateway.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use tracing::{error, info};

use super::{check, exit, logging};
use crate::{
    api::{self, Api},
    config::{self, Loaded, Ports},
    gateway::{Gateway, access::Access, audit::Audit, tls, watchdog},
    host::scope::Scope,
    rtsp,
};

/// Run the gateway.
///
/// Reads everything before it opens any port; ends on SIGTERM or Ctrl-C after acknowledging what it can.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  chowki run --config /etc/chowki/district.toml
  RUST_LOG=debug chowki run --config district.toml

Exit status: 0 stopped as asked, 1 it could not start or a part failed, 66 or 78 as `chowki check`.")]
pub struct Args {
    /// The config.
    #[arg(long, short, default_value = "/etc/chowki/district.toml")]
    pub config: PathBuf,
}

/// Runs `chowki run`.
pub fn run(args: &Args) -> ExitCode {
    logging::start(None);
    let loaded = match config::load(&args.config, Ports::Leave) {
        Ok(loaded) => loaded,
        Err(faults) => {
            check::show(&faults);
            return check::exit_of(&faults);
        }
    };
    check::show(&loaded.warnings);
    raise_file_limit();
    let runtime = match super::runtime() {
        Ok(runtime) => runtime,
        Err(e) => {
            error!(error = %e, "no runtime");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(serve(loaded)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            error!("{e}");
            ExitCode::from(exit::FAILED)
        }
    }
}

/// Takes all the file descriptors that we may have. The limit that programs begin with is that of `select`, 1,024 on
/// most systems: some hundred cameras and a thousand buttons use it up, and then neither a button nor the journal's
/// next segment gets one.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    if let Err(e) = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum }) {
        tracing::warn!(error = %e, "the limit of open files stays as it is");
    }
}

async fn serve(loaded: Loaded) -> Result<(), String> {
    let scope = Scope::new("chowki");
    let running = start(loaded, &scope, false, axum::Router::new()).await?;
    watchdog::ready();
    match running.rtsp {
        Some(address) => info!(page = %running.page, rtsp = %format!("rtsp://{address}/"), "ready"),
        None => info!(page = %running.page, "ready"),
    }
    super::asked_to_stop().await;
    info!("stopping");
    watchdog::stopping();
    running.stop(scope).await;
    Ok(())
}

/// A gateway with its API and its cameras by RTSP, running.
pub(super) struct Running {
    /// The gateway.
    pub gateway: Gateway,
    /// Where the page is.
    pub page: String,
    /// Where the cameras are by RTSP, if they are.
    pub rtsp: Option<SocketAddr>,
    outside: Scope,
}

impl Running {
    /// Stops both, the gateway in its own order, then everything else in `scope`.
    pub async fn stop(self, scope: Scope) {
        // The page's streams and those of RTSP end with their scope; requests under way have a moment.
        self.outside.shutdown(Duration::from_secs(1)).await;
        self.gateway.stop().await;
        scope.shutdown(Duration::from_secs(2)).await;
    }
}

/// Starts the gateway and its API. `extra` are the demo's own routes.
pub(super) async fn start(loaded: Loaded, scope: &Scope, demo: bool, extra: axum::Router) -> Result<Running, String> {
    let settings = loaded.config.api.clone();
    let outside = scope.child("outside");
    let files = settings.tls.map(|t| tls::Files { cert: t.cert, key: t.key, client_ca: t.client_ca, demanded: false });
    let tls = files.map(|files| tls::serve(files, &outside)).transpose().map_err(|e| super::chain(&e))?;
    let data = loaded.config.data.dir.clone();
    let group = loaded.config.call.groups.first().cloned().unwrap_or_default();
    // Bound before anything runs, served when everything does.
    let listener = tokio::net::TcpListener::bind(settings.listen).await.map_err(|e| {
        format!("cannot listen for HTTP on {}: {e}; free the port, or change `listen` under [api]", settings.listen)
    })?;
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    let cameras = match &loaded.config.rtsp {
        Some(settings) => Some(tokio::net::TcpListener::bind(settings.listen).await.map_err(|e| {
            format!(
                "cannot listen for RTSP on {}: {e}; free the port, or change `listen` under [rtsp]",
                settings.listen
            )
        })?),
        None => None,
    };
    let gateway = Gateway::start(loaded, scope).await.map_err(|e| super::chain(&e))?;
    let access = Arc::new(Access::with_issued(&settings.clients, &data, &group));
    access.keep_up(&outside);
    let audit = Arc::new(Audit::open(&data, &outside).await.map_err(|e| super::chain(&e))?);
    let scheme = if tls.is_some() { "https" } else { "http" };
    let facade = gateway.facade();
    let rtsp = cameras.as_ref().and_then(|listener| listener.local_addr().ok());
    if let Some(listener) = cameras {
        let cameras = Arc::new(rtsp::Cameras::new(facade.clone(), access.clone(), audit.clone()));
        rtsp::serve(listener, cameras, facade.spectators().clone(), rtsp::Limits::default(), &outside);
    }
    let (limiter, sessions) = (Arc::default(), Arc::default());
    let router = api::router(Api { gateway: facade, access, sessions, audit, limiter, demo }, extra);
    api::serve(listener, tls, router, api::Limits::default(), &outside);
    Ok(Running { gateway, page: format!("{scheme}://{address}/"), rtsp, outside })
}
