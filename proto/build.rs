//! Compiles the .proto files with protox: no system protoc is needed.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "pgconvoy/v1/model.proto",
        "pgconvoy/v1/source.proto",
        "pgconvoy/v1/target.proto",
    ];
    println!("cargo:rerun-if-changed=pgconvoy");
    let descriptors = protox::compile(files, ["."])?;
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
