//! A TUN device: a network interface whose packets a program reads and writes.
use std::fs::File;
use std::io;

use rustix::ioctl::{Setter, ioctl};

/// TUNSETIFF: which device an open /dev/net/tun is (linux/if_tun.h).
const SET_INTERFACE: rustix::ioctl::Opcode = 0x4004_54ca;
/// IFF_TUN (packets, no Ethernet) and IFF_NO_PI (nothing before them).
const FLAGS: u16 = 0x0001 | 0x1000;
/// struct ifreq: a name of 16 bytes, then a union of 24.
const NAME: usize = 16;
const REQUEST: usize = 40;

/// Makes the device in the calling thread's network namespace. It goes away with the file.
pub fn open(name: &str) -> io::Result<File> {
    let device = File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    let mut request = [0u8; REQUEST];
    let length = name.len().min(NAME - 1);
    request[..length].copy_from_slice(&name.as_bytes()[..length]);
    request[NAME..NAME + 2].copy_from_slice(&FLAGS.to_ne_bytes());
    set_interface(&device, request)?;
    Ok(device)
}

#[expect(unsafe_code, reason = "no safe crate of the tree knows this ioctl")]
fn set_interface(device: &File, request: [u8; REQUEST]) -> io::Result<()> {
    // SAFETY: TUNSETIFF reads a struct ifreq of 40 bytes from the pointer, which is what `request` is.
    unsafe { ioctl(device, Setter::<SET_INTERFACE, [u8; REQUEST]>::new(request))? };
    Ok(())
}
