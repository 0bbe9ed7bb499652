//! A TCP proxy in front of an agent that lets so many bytes towards it pass and no more. What comes back is not held up.
//!
//! With it a migration is stopped at a point that the test chooses by looking at the ledger, not at a clock.
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use crate::{PATIENCE, eventually};

/// How much [`Gate::feed_until`] lets pass before it looks again.
const SIP: u64 = 128 * 1024;

/// Cuts its connections and closes its port when dropped.
#[derive(Debug)]
pub struct Gate {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    destination: u16,
}

#[derive(Debug, Default)]
struct State {
    /// How many bytes may pass; `None`: the gate is open.
    budget: Option<u64>,
    /// Connections that have something to say and may not.
    starving: usize,
    closed: bool,
    connections: Vec<TcpStream>,
}

impl Gate {
    /// Open.
    pub fn to(port: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let gate = Self {
            port: listener.local_addr()?.port(),
            shared: Arc::new(Shared {
                state: Mutex::default(),
                changed: Condvar::new(),
                destination: port,
            }),
        };
        let shared = gate.shared.clone();
        thread::spawn(move || accept(&listener, &shared));
        Ok(gate)
    }

    /// Nothing passes until it is fed or opened.
    pub fn shut(self) -> Self {
        self.shared.state().budget = Some(0);
        self
    }

    /// Passes no more than so many bytes per second, of all connections together.
    pub fn slow(self, rate: u64) -> Self {
        const TICKS: u64 = 10;
        let gate = self.shut();
        let shared = gate.shared.clone();
        thread::spawn(move || {
            while !shared.state().closed {
                thread::sleep(Duration::from_secs(1) / TICKS as u32);
                shared.change(|state| state.budget = Some(rate / TICKS));
            }
        });
        gate
    }

    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn open(&self) {
        self.shared.change(|state| state.budget = None);
    }

    /// Breaks every connection that there is; new ones are taken.
    pub fn cut(&self) {
        self.shared.change(State::cut);
    }

    /// Lets a shut gate pass small amounts, one after the other, until the condition holds. Then it is shut.
    ///
    /// # Panics
    /// When the condition does not come about.
    #[track_caller]
    pub fn feed_until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        eventually(what, PATIENCE, || {
            if condition() {
                return true;
            }
            self.shared.change(|state| {
                if state.starving > 0 && state.budget == Some(0) {
                    state.budget = Some(SIP);
                }
            });
            false
        });
        self.shared.change(|state| state.budget = Some(0));
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.shared.change(|state| {
            state.closed = true;
            state.cut();
        });
        // Wakes the accepting thread, which then sees that it is over.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

impl State {
    fn cut(&mut self) {
        for connection in self.connections.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    /// Waits until something may pass; how much of `wanted` may.
    fn draw(&self, wanted: usize) -> usize {
        let mut state = self.state();
        state.starving += 1;
        while state.budget == Some(0) && !state.closed {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.starving -= 1;
        let granted = match &mut state.budget {
            None => wanted,
            Some(budget) => {
                let granted = usize::try_from(*budget).unwrap_or(wanted).min(wanted);
                *budget -= granted as u64;
                granted
            }
        };
        drop(state);
        granted
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming().map_while(Result::ok) {
        if shared.state().closed {
            return;
        }
        // The agent may be dead: then its clients find that out here too.
        if let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, shared.destination)) {
            // A connection that cannot be set up is one that broke at once.
            let _ = join(client, server, shared);
        }
    }
}

fn join(client: TcpStream, server: TcpStream, shared: &Arc<Shared>) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    {
        let mut state = shared.state();
        state.connections.push(client.try_clone()?);
        state.connections.push(server.try_clone()?);
    }
    let back = (server.try_clone()?, client.try_clone()?);
    let gate = shared.clone();
    thread::spawn(move || pump(client, server, |wanted| gate.draw(wanted)));
    thread::spawn(move || pump(back.0, back.1, |wanted| wanted));
    Ok(())
}

/// Carries bytes until one end is closed; then closes both.
fn pump(mut from: TcpStream, mut to: TcpStream, draw: impl Fn(usize) -> usize) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            let granted = draw(rest.len());
            // Nothing is granted only when the gate is gone.
            if granted == 0 || to.write_all(&rest[..granted]).is_err() {
                let _ = from.shutdown(Shutdown::Both);
                return;
            }
            rest = &rest[granted..];
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A server that counts what arrives, and answers the first byte.
    fn counter() -> (u16, Arc<AtomicUsize>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let count = Arc::new(AtomicUsize::new(0));
        let counting = count.clone();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            stream.write_all(b"!").expect("an answer");
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = stream.read(&mut buffer) {
                counting.fetch_add(read, Ordering::SeqCst);
            }
        });
        (port, count)
    }

    #[test]
    fn a_shut_gate_is_fed_by_sips_and_then_opened() {
        let (port, arrived) = counter();
        let gate = Gate::to(port).expect("a gate").shut();
        let mut client =
            TcpStream::connect((Ipv4Addr::LOCALHOST, gate.port())).expect("a connection");
        let mut answer = [0; 1];
        client
            .read_exact(&mut answer)
            .expect("the way back is open");
        let total = 4 * usize::try_from(SIP).expect("a small number");
        let writer = thread::spawn(move || {
            client
                .write_all(&vec![7; total])
                .expect("everything is taken");
            client
        });
        gate.feed_until("the first bytes arrive", || {
            arrived.load(Ordering::SeqCst) > 0
        });
        assert!(
            arrived.load(Ordering::SeqCst) < total,
            "all of it has passed"
        );
        gate.open();
        let client = writer.join().expect("the writer ends");
        eventually("the rest arrives", PATIENCE, || {
            arrived.load(Ordering::SeqCst) == total
        });
        drop(client);
    }

    #[test]
    fn a_cut_breaks_the_connection() {
        let (port, _) = counter();
        let gate = Gate::to(port).expect("a gate");
        let mut client =
            TcpStream::connect((Ipv4Addr::LOCALHOST, gate.port())).expect("a connection");
        let mut answer = [0; 1];
        client.read_exact(&mut answer).expect("it is open");
        gate.cut();
        assert_eq!(client.read(&mut answer).unwrap_or(0), 0);
    }
}
