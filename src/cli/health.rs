//! `menshen health`: prints whether a server is ready. It serves container engines, whose images
//! have no shell to ask with.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::{client, runtime};

/// Shorter than the limit of the image's HEALTHCHECK (10 s), so that the reason is still printed.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Options of `menshen health`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Address of the server's gRPC listener.
    #[arg(long, default_value = "http://127.0.0.1:50051")]
    server: String,
}

/// Exits with 0 if the server is SERVING and with 1 otherwise, even without an answer. Other
/// commands fail with 2, but container engines reserve 2.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    Ok(match runtime()?.block_on(query_health(&args.server)) {
        Ok(status) => {
            println!("{}", status.as_str_name());
            if status == ServingStatus::Serving { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    })
}

/// Returns the gRPC health of the server as a whole.
async fn query_health(server: &str) -> anyhow::Result<ServingStatus> {
    let answer = async {
        let mut health = HealthClient::new(client::connect(server).await?);
        let request = HealthCheckRequest { service: String::new() };
        let answer = health.check(request).await.map_err(|status| client::call_error(&status))?;
        Ok(answer.into_inner().status())
    };
    let limit = TIMEOUT.as_secs();
    let timed = tokio::time::timeout(TIMEOUT, answer).await;
    timed.with_context(|| format!("{server} does not answer within {limit} s"))?
}
