//! Bytes per second of each piece of the data path: splitting, digesting, padding, and the frame codec at each level.
use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pgconvoy_agent_core::rows::RowDigester;
use pgconvoy_agent_core::rows::fields::Rows;
use pgconvoy_agent_core::rows::padding::Padding;
use pgconvoy_micro::{noise, rows};
use pgconvoy_proto::frame::{Opener, Sealer, THRIFTY};
use pgconvoy_proto::model::Format;

fn over_rows(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rows");
    for format in [Format::Text, Format::Binary] {
        let data = rows(format);
        group.throughput(Throughput::Bytes(data.len() as u64));
        group.bench_function(BenchmarkId::new("split", format), |bencher| {
            bencher.iter(|| {
                let mut lengths = 0;
                let mut rows = Rows::new(format);
                rows.feed(black_box(&data), |row| {
                    lengths += row.len();
                    Ok(())
                })
                .expect("rows");
                lengths
            });
        });
        group.bench_function(BenchmarkId::new("digest", format), |bencher| {
            bencher.iter(|| {
                let mut rows = RowDigester::new(format);
                rows.feed(black_box(&data)).expect("rows");
                rows.rows()
            });
        });
        let padding = Padding::new(format, vec![false, false, false, true]);
        group.bench_function(BenchmarkId::new("digest and unpad", format), |bencher| {
            let mut out = Vec::with_capacity(data.len());
            bencher.iter(|| {
                out.clear();
                let mut rows = RowDigester::new(format);
                rows.feed_unpadded(black_box(&data), &padding, &mut out)
                    .expect("rows");
                out.len()
            });
        });
    }
    group.finish();
}

fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frames");
    let kinds: [(&str, Bytes); 2] = [("rows", rows(Format::Binary)), ("noise", noise())];
    for (kind, data) in kinds {
        group.throughput(Throughput::Bytes(data.len() as u64));
        for (name, level) in [("thrifty", THRIFTY), ("off", 0), ("1", 1), ("3", 3)] {
            let mut sealer = Sealer::new(level).expect("a level");
            group.bench_function(BenchmarkId::new(format!("seal {kind}"), name), |bencher| {
                bencher.iter(|| sealer.seal(black_box(data.clone())).expect("sealed"));
            });
            let chunk = sealer.seal(data.clone()).expect("sealed");
            let mut opener = Opener::new().expect("an opener");
            group.bench_function(BenchmarkId::new(format!("open {kind}"), name), |bencher| {
                bencher.iter(|| opener.open(black_box(chunk.clone())).expect("opened"));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, over_rows, frames);
criterion_main!(benches);
