//! Start, health, reflection and drain.

use menshen::app::App;
use menshen::proto::v1;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::support::{
    channel, config, connect, copy_folder, http_get, metric, run_menshen, text, verify_request,
};

async fn health(app: &App, service: &str) -> ServingStatus {
    let mut client = HealthClient::new(channel(app.grpc_address()).await);
    let request = HealthCheckRequest { service: service.into() };
    client.check(request).await.unwrap().into_inner().status()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_not_serving_until_its_models_are_live() {
    let mut app = App::bind(config()).await.unwrap();
    for service in ["", "menshen.v1.FaceService", "menshen.v1.LivenessService"] {
        assert_eq!(health(&app, service).await, ServingStatus::NotServing, "{service}");
    }
    assert_eq!(http_get(app.http_address(), "/livez").await.0, 200);
    assert_eq!(http_get(app.http_address(), "/readyz").await.0, 503);
    let mut client = connect(app.grpc_address()).await;
    let request = verify_request("person_b_1.jpg", &["person_b_2.jpg"]);
    let status = client.verify(request.clone()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);

    app.load().await.unwrap();
    for service in ["", "menshen.v1.FaceService", "menshen.v1.LivenessService"] {
        assert_eq!(health(&app, service).await, ServingStatus::Serving, "{service}");
    }
    assert_eq!(http_get(app.http_address(), "/readyz").await.0, 200);
    client.verify(request).await.unwrap();
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_command_fails_with_1_unless_the_server_serves() {
    let mut app = App::bind(config()).await.unwrap();
    let address = app.grpc_address().to_string();
    let run_health = || {
        let health = run_menshen(&["health", "--server", &address]);
        (health.status.code(), text(&health.stdout))
    };
    assert_eq!(run_health(), (Some(1), "NOT_SERVING\n".to_owned()));
    app.load().await.unwrap();
    assert_eq!(run_health(), (Some(0), "SERVING\n".to_owned()));
    app.stop().await;
    let (code, printed) = run_health();
    assert_eq!(code, Some(1));
    assert!(printed.contains("no server answers"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_misses_its_golden_never_serves() {
    let models = tempfile::tempdir().unwrap();
    copy_folder(&config().models.dir, models.path());
    // The order of the colour channels is a security property, so the golden must detect a change.
    let manifest = models.path().join("fr_liveness/0.0.1/model.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    assert!(text.contains("colour = \"bgr\""));
    std::fs::write(&manifest, text.replace("colour = \"bgr\"", "colour = \"rgb\"")).unwrap();
    let mut config = config();
    config.models.dir = models.path().to_owned();
    let mut app = App::bind(config).await.unwrap();
    let error = app.load().await.unwrap_err();
    let chain = format!("{:#}", anyhow::Error::from(error));
    assert!(chain.contains("fr_liveness"), "{chain}");
    assert_eq!(health(&app, "").await, ServingStatus::NotServing);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_finishes_what_is_in_flight() {
    let app = App::start(config()).await.unwrap();
    let (grpc, http) = (app.grpc_address(), app.http_address());
    let client = connect(grpc).await;
    let calls: Vec<_> = (0..6)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move {
                client.verify(verify_request("person_b_1.jpg", &["person_b_2.jpg"])).await
            })
        })
        .collect();
    while metric(&http_get(http, "/metrics").await.1, "menshen_requests_in_flight") < 6.0 {
        tokio::task::yield_now().await;
    }
    app.stop().await;
    for call in calls {
        let answer = call.await.unwrap().unwrap().into_inner();
        assert_eq!(answer.decision(), v1::Decision::Pass);
    }
    assert!(tokio::net::TcpStream::connect(grpc).await.is_err(), "the listener is closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_draining_a_server_says_so_and_still_answers() {
    let mut config = config();
    config.server.drain_grace_ms = 3_600_000;
    let app = App::start(config).await.unwrap();
    let (grpc, http) = (app.grpc_address(), app.http_address());
    let mut client = connect(grpc).await;
    let stopping = tokio::spawn(app.stop());
    while http_get(http, "/readyz").await.0 != 503 {
        tokio::task::yield_now().await;
    }
    let mut health = HealthClient::new(channel(grpc).await);
    let request = HealthCheckRequest { service: String::new() };
    let mut updates = health.watch(request).await.unwrap().into_inner();
    while updates.message().await.unwrap().unwrap().status() != ServingStatus::NotServing {}
    assert_eq!(http_get(http, "/livez").await.0, 200);
    client.verify(verify_request("person_b_1.jpg", &["person_b_2.jpg"])).await.unwrap();
    stopping.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_watches_health_learns_of_the_stop_and_does_not_delay_it() {
    let mut config = config();
    config.server.drain_timeout_ms = 3_600_000;
    let app = App::bind(config).await.unwrap();
    let mut health = HealthClient::new(channel(app.grpc_address()).await);
    let request = HealthCheckRequest { service: String::new() };
    let mut updates = health.watch(request).await.unwrap().into_inner();
    updates.message().await.unwrap().unwrap();
    let stopped = tokio::time::timeout(std::time::Duration::from_secs(60), app.stop()).await;
    assert!(stopped.is_ok(), "the watch holds up the drain");
    while let Some(update) = updates.message().await.unwrap() {
        assert_eq!(update.status(), ServingStatus::NotServing);
    }
}

#[tokio::test]
async fn reflection_lists_the_services() {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

    let address =
        tokio::task::spawn_blocking(|| crate::support::shared_server().grpc).await.unwrap();
    let mut client = ServerReflectionClient::new(channel(address).await);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers =
        client.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
    let ServerReflectionResponse { message_response, .. } =
        answers.message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = message_response else {
        panic!("not a list: {message_response:?}");
    };
    let names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    for service in ["menshen.v1.FaceService", "menshen.v1.LivenessService", "grpc.health.v1.Health"]
    {
        assert!(names.contains(&service.to_owned()), "{service} in {names:?}");
    }
}

#[tokio::test]
async fn a_device_that_is_not_there_is_a_clear_error() {
    let mut config = config();
    config.device.device = "cuda:0".parse().unwrap();
    let error = App::start(config).await.unwrap_err();
    let chain = format!("{:#}", anyhow::Error::from(error));
    assert!(chain.contains("cuda:0"), "{chain}");
}

#[tokio::test]
async fn a_model_that_is_unknown_is_a_clear_error() {
    let mut config = config();
    config.models.embedder = "arcface".into();
    let error = App::start(config).await.unwrap_err();
    let chain = format!("{:#}", anyhow::Error::from(error));
    assert!(chain.contains("arcface"), "{chain}");
}

#[tokio::test]
async fn an_impossible_placement_is_a_clear_error() {
    let mut config = config();
    config.device.placement = [("sface".to_owned(), vec![0])].into();
    let error = App::start(config).await.unwrap_err();
    let chain = format!("{:#}", anyhow::Error::from(error));
    assert!(chain.contains("device.placement.sface lists CUDA devices"), "{chain}");
}
