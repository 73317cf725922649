//! A guest's helper for the provider's own tests: it stays, it echoes, it knocks on doors.
//! Built by the test with rustc for musl, so it uses nothing but std.

use std::arch::asm;
use std::io::{Read, Write};

unsafe extern "C" {
    fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
    fn pause() -> i32;
    fn _exit(status: i32) -> !;
    fn syscall(number: i64, ...) -> i64;
}

extern "C" fn leave(_: i32) {
    unsafe { _exit(0) }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["init", rest @ ..] => {
            unsafe { signal(15, leave) };
            match rest {
                ["--fail"] => {
                    eprintln!("the placeholder was told to fail");
                    std::process::exit(7);
                }
                ["--knock"] => knock(),
                _ => {}
            }
            loop {
                unsafe { pause() };
            }
        }
        ["carrier"] => {
            let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
            let mut buffer = vec![0; 65536];
            loop {
                let n = input.read(&mut buffer).unwrap();
                if n == 0 {
                    break;
                }
                output.write_all(&buffer[..n]).unwrap();
                output.flush().unwrap();
            }
        }
        other => panic!("{other:?}"),
    }
}

fn knock() {
    let door = |name: &str, result: i64| println!("{name} {}", if result >= 0 { "open" } else { "shut" });
    unsafe {
        door("unix", syscall(41, 1, 1, 0));
        door("inet", syscall(41, 2, 1, 0));
        door("vsock", syscall(41, 40, 1, 0));
        door("vsock-x32", syscall(41 | 0x4000_0000, 40, 1, 0));
        door("vsock-i386", int80(359, 40, 1, 0));
        // socketcall(SYS_SOCKET, [family, type, protocol]); the pointer has to fit into 32 bits.
        let low = syscall(9, 0x1000_0000_i64, 4096_i64, 3_i64, 0x32_i64, -1_i64, 0_i64) as *mut i32;
        std::ptr::copy_nonoverlapping([40, 1, 0].as_ptr(), low, 3);
        door("vsock-socketcall", int80(102, 1, low as i64 as i32, 0));
        door("io_uring", syscall(425, 1, low.add(256)));
        door("namespace", syscall(272, 0x1000_0000));
    }
    println!("done");
}

/// A system call as 32-bit code makes it.
unsafe fn int80(number: i32, a: i32, b: i32, c: i32) -> i64 {
    let result: i32;
    unsafe {
        asm!(
            "xchg {a:r}, rbx", "int 0x80", "xchg {a:r}, rbx",
            a = inout(reg) i64::from(a) => _,
            inlateout("eax") number => result, in("ecx") b, in("edx") c,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    i64::from(result)
}
