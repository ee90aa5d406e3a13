//! Deadlines, and callers that cancel.

use menshen::proto::v1;
use prost::Message;
use tonic::Code;

use crate::raw;
use crate::support::{
    config, connect, http_get, metric, shared_server, verify_request, wait_for_metrics,
};

#[tokio::test]
async fn a_deadline_too_short_answers_deadline_exceeded() {
    let address = tokio::task::spawn_blocking(|| shared_server().grpc).await.unwrap();
    let message = verify_request("person_b_1.jpg", &["person_b_2.jpg"]).encode_to_vec();
    for timeout in ["0m", "1m", "1u", "999n"] {
        let status = raw::call(address, "Verify", &message, Some(timeout)).await;
        assert_eq!(status.code(), Code::DeadlineExceeded, "{timeout}: {status}");
    }
}

#[tokio::test]
async fn a_malformed_timeout_is_an_invalid_argument() {
    let address = tokio::task::spawn_blocking(|| shared_server().grpc).await.unwrap();
    let message = verify_request("person_b_1.jpg", &["person_b_2.jpg"]).encode_to_vec();
    let status = raw::call(address, "Verify", &message, Some("soon")).await;
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_leave_free_their_places_and_their_rows_are_dropped() {
    let mut config = config();
    config.server.requests_max = 8;
    let app = menshen::app::App::start(config).await.unwrap();
    let client = connect(app.grpc_address()).await;
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move {
                client.verify(verify_request("person_b_1.jpg", &["person_b_2.jpg"; 4])).await
            })
        })
        .collect();
    // A call has its ticket once its message has arrived. A caller that leaves before has sent an
    // invalid one.
    wait_for_metrics(app.http_address(), |text| metric(text, "menshen_tickets") == 8.0).await;
    for call in calls {
        call.abort();
    }
    wait_for_metrics(app.http_address(), |text| metric(text, "menshen_requests_in_flight") == 0.0)
        .await;
    let mut client = client.clone();
    let answer =
        client.verify(verify_request("person_b_1.jpg", &["person_b_2.jpg"])).await.unwrap();
    assert_eq!(answer.into_inner().decision(), v1::Decision::Pass);
    let (_, text) = http_get(app.http_address(), "/metrics").await;
    let cancelled = "menshen_requests_total{method=\"verify\",outcome=\"cancelled\"}";
    assert_eq!(metric(&text, cancelled), 8.0, "{text}");
    app.stop().await;
}
