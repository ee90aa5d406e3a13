//! `menshen health`: whether a server is ready, for container engines, which have no shell to ask.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::{client, runtime};

/// Shorter than the image's limit for the whole check, so that the reason is still printed.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Options of `menshen health`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Address of the server.
    #[arg(long, default_value = "http://127.0.0.1:50051")]
    server: String,
}

/// Succeeds if the server says SERVING. Anything else is 1, no answer included: container engines
/// reserve 2, which is what other commands fail with.
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

/// What gRPC health says of the server as a whole.
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
