//! The load generator against a real server. `tests/clients/load.py` checks the command.

use std::net::SocketAddr;
use std::time::Duration;

use menshen::app::App;
use menshen::load::{
    CallKind, Flow, LoadError, Outcome, Pictures, Plan, RunResult, Schedule, Spacing, Stores,
    Traffic, run,
};
use tonic::Code;

use crate::support::{config, shared_server};

fn plan(server: SocketAddr, mix: &str, traffic: Traffic) -> Plan {
    let minute = Duration::from_secs(60);
    Plan {
        server: server.to_string(),
        metrics: None,
        mix: mix.parse().unwrap(),
        traffic,
        warm_up: Duration::ZERO,
        timeout: 10 * minute,
        connect_timeout: minute,
        connections: 2,
        threads: 2,
        source_addresses: 3,
        stores: Stores { count: 10, skew: 1.0, prefix: "shop-".to_owned() },
        pictures: Pictures::built_in(),
        film: None,
        metadata: tonic::metadata::MetadataMap::new(),
        in_flight_bytes_max: 1 << 30,
        seed: 1,
    }
}

fn open(rate: f64, seconds: u64) -> Traffic {
    let schedule = Schedule::constant(rate, Duration::from_secs(seconds));
    Traffic::Open { schedule, spacing: Spacing::Constant }
}

fn make(plan: &Plan) -> RunResult {
    run(plan, &mut |_| Flow::Continue).unwrap()
}

fn count(result: &RunResult, kind: CallKind, outcome: Outcome) -> u64 {
    let record = result.total.kind(kind);
    record.and_then(|record| record.outcomes.get(&outcome)).copied().unwrap_or(0)
}

#[test]
fn every_kind_of_unary_call_is_answered() {
    let mix = "verify,compare,embed,detect,check-liveness,health";
    let result = make(&plan(shared_server().grpc, mix, open(30.0, 1)));
    assert_eq!((result.total.offered, result.total.answered()), (30, 30));
    let kinds: Vec<CallKind> = result.total.kinds().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, CallKind::ALL[..6]);
    for (kind, record) in result.total.kinds() {
        assert!(record.answered() > 0 && record.latency.len() == record.answered(), "{kind}");
        assert!(record.latency.max() >= record.service.max(), "{kind}");
    }
}

#[test]
fn a_closed_loop_sends_so_many_calls_whatever_the_number_of_its_threads() {
    let (concurrency, duration) = (3, Duration::from_secs(600));
    let traffic = Traffic::Closed { concurrency, duration, calls_max: Some(50) };
    let result = make(&plan(shared_server().grpc, "health", traffic));
    assert_eq!(count(&result, CallKind::Health, Outcome::Answered), 50);
    assert!(result.in_flight_peak <= 3, "{}", result.in_flight_peak);
}

#[test]
fn calls_beyond_the_memory_are_errors_and_are_not_sent() {
    let plan =
        Plan { in_flight_bytes_max: 1, ..plan(shared_server().grpc, "detect", open(50.0, 1)) };
    let result = make(&plan);
    assert_eq!(count(&result, CallKind::Detect, Outcome::NotSent), 50);
    assert_eq!((result.total.offered, result.total.failed()), (50, 50));
}

#[test]
fn calls_to_a_server_that_stops_fail_and_the_run_ends() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut app = Some(runtime.block_on(App::bind(config())).unwrap());
    let address = app.as_ref().unwrap().grpc_address();
    let plan = plan(address, "health", open(100.0, 3));
    let result = run(&plan, &mut |progress| {
        if progress.total.answered() > 0
            && let Some(app) = app.take()
        {
            runtime.block_on(app.stop());
        }
        Flow::Continue
    });
    let result = result.unwrap();
    assert_eq!(result.total.offered, 300);
    let unavailable = count(&result, CallKind::Health, Outcome::Status(Code::Unavailable));
    assert!(result.total.answered() > 0 && unavailable > 0, "{:?}", result.total.kinds().next());
    assert_eq!(result.total.answered() + unavailable, 300);
}

#[test]
fn a_stopped_run_sends_no_more_calls_and_says_how_long_it_sent() {
    let plan = plan(shared_server().grpc, "health", open(100.0, 600));
    let result = run(&plan, &mut |_| Flow::Stop).unwrap();
    assert!(result.total.offered >= 90 && result.sent_for < Duration::from_secs(600));
    assert_eq!(result.total.answered(), result.total.offered);
}

#[test]
fn a_plan_that_cannot_be_run_is_refused_before_the_first_call() {
    let server = shared_server().grpc;
    let refused = |plan: Plan| run(&plan, &mut |_| Flow::Continue).unwrap_err();
    let good = || plan(server, "health", open(10.0, 1));
    for (name, plan) in [
        ("duration", plan(server, "health", open(10.0, 0))),
        ("rate", plan(server, "health", open(0.0, 1))),
        ("rate", plan(server, "health", open(f64::NAN, 1))),
        ("connections", Plan { connections: 0, ..good() }),
        ("client-threads", Plan { threads: 3, ..good() }),
        ("timeout", Plan { timeout: Duration::ZERO, ..good() }),
        ("warm-up", Plan { warm_up: Duration::MAX, ..good() }),
        ("stores", Plan { stores: Stores { count: 0, ..good().stores }, ..good() }),
    ] {
        let error = refused(plan);
        assert!(
            matches!(error, LoadError::Range { name: of, .. } if of == name),
            "{name}: {error}"
        );
    }
    let closed_port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = refused(plan(closed_port, "health", open(10.0, 1)));
    assert!(matches!(error, LoadError::Connect { .. }), "{error}");
    let metrics = Some(closed_port.to_string());
    let error = refused(Plan { metrics, ..good() });
    assert!(matches!(error, LoadError::Metrics { .. }), "{error}");
}
