//! tcpdump's filter syntax, compiled by libpcap, which is loaded when it is first needed (dlopen): the
//! build needs no header, and a host without the library only goes without filters.
//!
//! `pcap_open_dead` and `pcap_compile` need no device and no privilege. What comes back is a list of plain
//! numbers, copied at once; `switchd_capture::filter` checks and runs it. Older libpcap keeps the compiler's
//! state in globals, so one expression is compiled at a time.
//!
//! [`preload`] loads the library, and through it the name-service configuration, before a sandbox closes.
//! Names of hosts are looked up by libpcap itself; inside the sandbox that fails with its own message.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::sync::{Mutex, OnceLock, PoisonError};
use switchd_wire::bpf::Instruction;

/// The longest expression, in bytes: libpcap's optimizer recurses over what the expression becomes.
pub const EXPRESSION_MAX: usize = 4096;

const LIBRARIES: [&str; 2] = ["libpcap.so.1", "libpcap.so.0.8"];
/// Link type of the frames (pcap/dlt.h).
const DLT_EN10MB: c_int = 1;
/// `PCAP_NETMASK_UNKNOWN`: only `ip broadcast` would need it.
const NETMASK_UNKNOWN: c_uint = 0xffff_ffff;
/// Far above what the interpreter takes.
const INSTRUCTIONS_MAX: c_uint = 1 << 16;

/// Why there is no program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error(
        "capture filters need libpcap, which could not be loaded ({0}): install the Debian package libpcap0.8"
    )]
    Missing(String),
    #[error("filter {expression:?}: {message}")]
    Syntax { expression: String, message: String },
    #[error("the filter is {0} bytes long; at most {EXPRESSION_MAX} are accepted")]
    TooLong(usize),
}

/// Loads the library now, and touches what it reads at its first use. Call it before the sandbox closes;
/// an error does not matter then, [`compile`] repeats it.
pub fn preload() -> Result<(), FilterError> {
    compile("tcp port http", 262_144).map(drop)
}

/// The program for an expression on Ethernet frames. An empty expression matches everything. `snaplen` is
/// what the program returns for a match.
pub fn compile(expression: &str, snaplen: u32) -> Result<Vec<Instruction>, FilterError> {
    if expression.len() > EXPRESSION_MAX {
        return Err(FilterError::TooLong(expression.len()));
    }
    let syntax = |message: &str| FilterError::Syntax {
        expression: expression.to_owned(),
        message: message.to_owned(),
    };
    let text = CString::new(expression).map_err(|_| syntax("contains a NUL character"))?;
    let snaplen = c_int::try_from(snaplen.max(1)).map_err(|_| syntax("the snaplen is out of range"))?;
    static LIBRARY: OnceLock<Result<Library, String>> = OnceLock::new();
    let library = LIBRARY.get_or_init(Library::load).as_ref().map_err(|e| FilterError::Missing(e.clone()))?;
    library.compile(&text, snaplen).map_err(|message| syntax(&message))
}

/// `struct bpf_program` (pcap/bpf.h).
#[repr(C)]
struct RawProgram {
    len: c_uint,
    instructions: *mut RawInstruction,
}

/// `struct bpf_insn` (pcap/bpf.h).
#[repr(C)]
#[derive(Clone, Copy)]
struct RawInstruction {
    code: u16,
    jt: u8,
    jf: u8,
    k: u32,
}

type OpenDead = unsafe extern "C" fn(c_int, c_int) -> *mut c_void;
type Compile = unsafe extern "C" fn(*mut c_void, *mut RawProgram, *const c_char, c_int, c_uint) -> c_int;
type GetErr = unsafe extern "C" fn(*mut c_void) -> *mut c_char;
type FreeCode = unsafe extern "C" fn(*mut RawProgram);
type Close = unsafe extern "C" fn(*mut c_void);

struct Library {
    open_dead: OpenDead,
    compile: Compile,
    get_err: GetErr,
    free_code: FreeCode,
    close: Close,
    one_at_a_time: Mutex<()>,
    /// Keeps the functions above loaded; dropped last, and in fact never.
    _handle: libloading::Library,
}

impl Library {
    fn load() -> Result<Library, String> {
        let mut failure = String::new();
        for name in LIBRARIES {
            match Library::open(name) {
                Ok(library) => return Ok(library),
                Err(error) if failure.is_empty() => failure = error.to_string(),
                Err(_) => {}
            }
        }
        Err(failure)
    }

    #[allow(unsafe_code)]
    fn open(name: &str) -> Result<Library, libloading::Error> {
        // SAFETY: loading runs the library's constructors; libpcap's only register nothing of ours. The
        // five types are those of pcap/pcap.h, which has kept them since 0.8. The function pointers are
        // copied out of their symbols, and live as long as `_handle`, which stands in the same struct.
        unsafe {
            let handle = libloading::Library::new(name)?;
            Ok(Library {
                open_dead: *handle.get::<OpenDead>(b"pcap_open_dead\0")?,
                compile: *handle.get::<Compile>(b"pcap_compile\0")?,
                get_err: *handle.get::<GetErr>(b"pcap_geterr\0")?,
                free_code: *handle.get::<FreeCode>(b"pcap_freecode\0")?,
                close: *handle.get::<Close>(b"pcap_close\0")?,
                one_at_a_time: Mutex::new(()),
                _handle: handle,
            })
        }
    }

    #[allow(unsafe_code)]
    fn compile(&self, text: &CStr, snaplen: c_int) -> Result<Vec<Instruction>, String> {
        let _turn = self.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: no pointer is passed; the result is null or a handle that is closed below on every path.
        let handle = unsafe { (self.open_dead)(DLT_EN10MB, snaplen) };
        if handle.is_null() {
            return Err("libpcap is out of memory".to_owned());
        }
        let mut raw = RawProgram { len: 0, instructions: std::ptr::null_mut() };
        // SAFETY: `handle` is open, `raw` is a bpf_program that outlives the call, `text` ends in NUL and is
        // only read. The lock keeps other compilations out of the library's globals.
        let status = unsafe { (self.compile)(handle, &mut raw, text.as_ptr(), 1, NETMASK_UNKNOWN) };
        let outcome = if status != 0 {
            // SAFETY: `handle` is open; its error buffer ends in NUL and is copied before the close.
            let message = unsafe { CStr::from_ptr((self.get_err)(handle)) };
            Err(message.to_string_lossy().into_owned())
        } else {
            let program = if raw.len > INSTRUCTIONS_MAX || raw.instructions.is_null() {
                Err(format!("becomes a program of {} instructions", raw.len))
            } else {
                // SAFETY: after success the library owns `len` instructions at `instructions`, unchanged
                // until freecode; they are copied here.
                let list = unsafe { std::slice::from_raw_parts(raw.instructions, raw.len as usize) };
                Ok(list
                    .iter()
                    .map(|&RawInstruction { code, jt, jf, k }| Instruction { code, jt, jf, k })
                    .collect())
            };
            // SAFETY: filled by a successful compile, freed once, not used again.
            unsafe { (self.free_code)(&mut raw) };
            program
        };
        // SAFETY: opened above, not used again.
        unsafe { (self.close)(handle) };
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_becomes_the_program_that_tcpdump_prints() {
        // `tcpdump -y EN10MB -d "ether proto 0x88cc"`: ldh [12]; jeq #0x88cc; ret #262144; ret #0.
        let program = compile("ether proto 0x88cc", 262_144).unwrap();
        let plain: Vec<_> = program.iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect();
        assert_eq!(plain, [(0x28, 0, 0, 12), (0x15, 0, 1, 0x88cc), (0x06, 0, 0, 262_144), (0x06, 0, 0, 0)]);
        assert_eq!(compile("", 96).unwrap(), [Instruction { code: 6, jt: 0, jf: 0, k: 96 }]);
    }

    #[test]
    fn a_bad_expression_is_named_with_the_reason() {
        for bad in ["tcp port", "port 99999999", "((((", "vlan vlan vlan and", "udp\0"] {
            let error = compile(bad, 96).unwrap_err();
            assert!(matches!(&error, FilterError::Syntax { expression, .. } if expression == bad), "{error}");
            assert!(error.to_string().contains("filter "), "{error}");
        }
        assert_eq!(compile(&"(".repeat(5000), 96), Err(FilterError::TooLong(5000)));
    }

    #[test]
    fn threads_compile_at_the_same_time() {
        let expected = compile("tcp port 80 and net 10.0.0.0/8", 96).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        assert_eq!(compile("tcp port 80 and net 10.0.0.0/8", 96).unwrap(), expected);
                        assert!(compile("tcp or or", 96).is_err());
                    }
                });
            }
        });
    }

    #[test]
    fn a_library_that_is_missing_is_named_by_its_package() {
        let error = FilterError::Missing(Library::open("libpcap.so.none").err().unwrap().to_string());
        assert!(error.to_string().contains("libpcap0.8"), "{error}");
    }
}
