//! What parent and child say to each other: postcard after a 4-byte length.

use std::io::{self, Read, Write};

use model::question::{Answer, Question};
use model::{Finding, Millis};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The longest frame either side accepts, in bytes. The rulings on the whole
/// residency space for five regions take about a quarter of it.
pub const LONGEST_FRAME: usize = 16 << 20;

/// From the parent to a child: a question, and how much processor time the answer may take.
/// Shortly before, the interpreter is interrupted, so that it can say where it was.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    /// The question.
    pub question: Question,
    /// The processor time that it may take.
    pub limit: Millis,
}

/// From a child.
#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    /// The child of this process id was forked, and is its asker's to reap. Said by the zygote.
    Born(u32),
    /// The cage is shut; these parts of it are missing.
    Ready(Vec<String>),
    /// Work on this file begins: if nothing more is heard, it is to blame.
    At(String),
    /// In that file, the form at this line and column is the next: if nothing more is heard, that one.
    AtForm(u32, u32),
    /// The answer to the question asked last.
    Answer(Answer),
    /// There is no answer: the interpreter was interrupted here. The child is good for nothing more.
    Late(Finding),
}

/// The frame of `value`.
pub fn frame<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let mut bytes = postcard::to_extend(value, vec![0; 4]).map_err(io::Error::other)?;
    let length = bytes.len() - 4;
    if length > LONGEST_FRAME {
        return Err(too_long(length));
    }
    bytes[..4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(bytes)
}

/// The length that a frame's first four bytes announce.
pub fn length(head: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_le_bytes(head) as usize;
    if length > LONGEST_FRAME { Err(too_long(length)) } else { Ok(length) }
}

/// The value of a frame's body, which must hold nothing else.
pub fn value<T: DeserializeOwned>(body: &[u8]) -> io::Result<T> {
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(io::Error::other(format!("{} bytes are left over in a frame", rest.len()))),
        Err(error) => Err(io::Error::other(error)),
    }
}

/// Reads one frame; nothing at the end of the stream.
pub fn read<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<Option<T>> {
    let mut head = [0; 4];
    match from.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let mut body = vec![0; length(head)?];
    from.read_exact(&mut body)?;
    value(&body).map(Some)
}

/// Writes one frame.
pub fn write<T: Serialize>(to: &mut impl Write, value: &T) -> io::Result<()> {
    to.write_all(&frame(value)?)
}

fn too_long(length: usize) -> io::Error {
    io::Error::other(format!("a frame of {length} bytes; at most {LONGEST_FRAME} are allowed"))
}
