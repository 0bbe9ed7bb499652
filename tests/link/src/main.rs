//! A link between two network namespaces: delay, rate, loss and a queue of bounded length, per direction.
//!
//! For kernels without netem. Each namespace gets a TUN device; what one kernel routes into its end comes out of the other end when
//! a real link would have delivered it. The emulator touches nothing outside the two namespaces it is given.
mod tun;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Bytes of a packet on the link, as on Ethernet.
const MTU: usize = 1500;
const DEVICE: &str = "pgconvoy0";

#[derive(Parser)]
struct Args {
    /// Network namespace of one end (as `ip netns` calls it); it gets the address 10.77.0.1
    one: String,
    /// Namespace of the other end: 10.77.0.2
    other: String,
    /// Time for a packet one way, milliseconds: half of the round trip
    #[arg(long)]
    delay: f64,
    /// Mbit/s, each way
    #[arg(long)]
    rate: f64,
    /// Packets lost, percent
    #[arg(long, default_value_t = 0.0)]
    loss: f64,
    /// Longest queue before the link, milliseconds; what comes then is dropped
    #[arg(long, default_value_t = 100.0)]
    queue: f64,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let shape = Shape {
        delay: Duration::from_secs_f64(args.delay / 1e3),
        bits_per_second: args.rate * 1e6,
        loss: args.loss / 100.0,
        longest_wait: Duration::from_secs_f64(args.queue / 1e3),
    };
    let one = end(&args.one, "10.77.0.1/24")?;
    let other = end(&args.other, "10.77.0.2/24")?;
    let (to_other, to_one) = (one.try_clone()?, other.try_clone()?);
    let directions = [shape.carry(to_other, other, 1), shape.carry(to_one, one, 2)];
    println!("ready");
    for direction in directions {
        direction
            .join()
            .ok()
            .context("a direction of the link failed")??;
    }
    Ok(())
}

/// A device in the namespace, with its address, up.
fn end(namespace: &str, address: &str) -> Result<File> {
    let device = thread::scope(|scope| scope.spawn(|| device_in(namespace)).join());
    let device = device.ok().context("making a device failed")??;
    let ip = |arguments: &[&str]| -> Result<()> {
        let status = Command::new("ip")
            .args(["-n", namespace])
            .args(arguments)
            .status()?;
        ensure!(status.success(), "ip -n {namespace} {arguments:?} failed");
        Ok(())
    };
    ip(&["address", "add", address, "dev", DEVICE])?;
    let mtu = MTU.to_string();
    // The kernel's own queue must not be the bottleneck: ours is the one that is bounded.
    ip(&[
        "link",
        "set",
        DEVICE,
        "mtu",
        &mtu,
        "txqueuelen",
        "10000",
        "up",
    ])?;
    ip(&["link", "set", "lo", "up"])?;
    Ok(device)
}

/// On a thread of its own: a namespace is a thread's.
fn device_in(namespace: &str) -> Result<File> {
    let path = format!("/run/netns/{namespace}");
    let there =
        File::open(&path).with_context(|| format!("{path}: make it with `ip netns add`"))?;
    move_into_link_name_space(there.as_fd(), Some(LinkNameSpaceType::Network))
        .context("entering a network namespace (are we root?)")?;
    tun::open(DEVICE).context("/dev/net/tun")
}

#[derive(Clone, Copy)]
struct Shape {
    delay: Duration,
    bits_per_second: f64,
    /// Share of packets, 0 to 1.
    loss: f64,
    longest_wait: Duration,
}

type Direction = thread::JoinHandle<Result<()>>;

impl Shape {
    /// Carries packets from one device to the other until one of them breaks. `seed` makes losses the same in every run.
    fn carry(self, from: File, to: File, seed: u64) -> Direction {
        let (sender, packets) = mpsc::channel();
        let delivery = thread::spawn(move || deliver(to, packets));
        thread::spawn(move || {
            self.admit(from, seed, sender)?;
            delivery.join().ok().context("a delivery failed")?
        })
    }

    /// Decides of each packet whether it is lost, and when it arrives.
    fn admit(
        self,
        mut from: File,
        seed: u64,
        sender: mpsc::Sender<(Instant, Vec<u8>)>,
    ) -> Result<()> {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut free_at = Instant::now();
        let mut buffer = [0; MTU + 64];
        loop {
            let length = from.read(&mut buffer)?;
            let now = Instant::now();
            let begin = free_at.max(now);
            if dice.roll() < self.loss || begin - now > self.longest_wait {
                continue;
            }
            free_at = begin + Duration::from_secs_f64(length as f64 * 8.0 / self.bits_per_second);
            if sender
                .send((free_at + self.delay, buffer[..length].to_vec()))
                .is_err()
            {
                return Ok(());
            }
        }
    }
}

/// Sleeping is no more exact than this: packets are due a little early rather than late.
const GRAIN: Duration = Duration::from_micros(60);

fn deliver(mut to: File, packets: mpsc::Receiver<(Instant, Vec<u8>)>) -> Result<()> {
    for (due, packet) in packets {
        let wait = due.saturating_duration_since(Instant::now());
        if wait > GRAIN {
            thread::sleep(wait);
        }
        to.write_all(&packet)?;
    }
    Ok(())
}

/// xorshift64: the same losses in every run.
struct Dice(u64);

impl Dice {
    /// 0 up to 1.
    fn roll(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}
