//! Compiles the protobuf files of the API with protox, so that the build needs no `protoc`.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto/menshen");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);

    let api = protox::compile(["menshen/v1/face.proto", "menshen/v1/liveness.proto"], ["proto"])?;
    std::fs::write(out.join("menshen.bin"), prost::Message::encode_to_vec(&api))?;
    tonic_prost_build::configure()
        // `Debug` of these messages is written by hand and prints lengths only.
        .skip_debug([
            "menshen.v1.Image",
            "menshen.v1.Embedding",
            "menshen.v1.CreateSessionResponse",
            "menshen.v1.Start",
            "menshen.v1.EvaluateRequest",
        ])
        // The result is ten times as large as the other events.
        .boxed(".menshen.v1.RunResponse.event.result")
        .compile_fds(api)?;
    Ok(())
}
