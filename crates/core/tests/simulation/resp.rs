//! RESP, the slow and obvious way: what simulated clients and shards speak.

/// A request as clients send it.
pub fn request<T: AsRef<[u8]>>(args: &[T]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        out.extend(bulk(arg.as_ref()));
    }
    out
}

pub fn bulk(bytes: &[u8]) -> Vec<u8> {
    let mut out = format!("${}\r\n", bytes.len()).into_bytes();
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
    out
}

pub fn bulk_or_null(bytes: Option<&[u8]>, is_resp3: bool) -> Vec<u8> {
    match bytes {
        Some(bytes) => bulk(bytes),
        None if is_resp3 => b"_\r\n".to_vec(),
        None => b"$-1\r\n".to_vec(),
    }
}

pub fn integer(number: i64) -> Vec<u8> {
    format!(":{number}\r\n").into_bytes()
}

pub fn array(elements: &[Vec<u8>]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", elements.len()).into_bytes();
    out.extend(elements.concat());
    out
}

/// Pairs laid behind each other.
pub fn map(elements: &[Vec<u8>], is_resp3: bool) -> Vec<u8> {
    if !is_resp3 {
        return array(elements);
    }
    let mut out = format!("%{}\r\n", elements.len() / 2).into_bytes();
    out.extend(elements.concat());
    out
}

/// Position after the line that begins at `at`, and its text without type and end.
fn line(data: &[u8], at: usize) -> Option<(&str, usize)> {
    let rest = data.get(at..)?;
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    let text = std::str::from_utf8(rest.get(1..end)?).ok()?;
    Some((text, at + end + 2))
}

/// Where the element at `at` ends; None when it is not whole. What is no RESP at all panics: nobody here may say that.
pub fn element_end(data: &[u8], at: usize) -> Option<usize> {
    let (text, next) = line(data, at)?;
    let count = |each: usize| text.parse::<i64>().expect("a count").max(0) as usize * each;
    let elements = match data[at] {
        b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => return Some(next),
        b'$' | b'=' | b'!' if text == "-1" => return Some(next),
        b'$' | b'=' | b'!' => {
            let end = next + count(1) + 2;
            return (data.len() >= end).then_some(end);
        }
        b'*' | b'~' | b'>' => count(1),
        b'%' => count(2),
        b'|' => count(2) + 1,
        other => panic!("no RESP type: {other:#x} in {:?}", shown(&data[at..])),
    };
    (0..elements).try_fold(next, |at, _| element_end(data, at))
}

/// The elements of a whole array, raw.
pub fn elements(data: &[u8]) -> Option<Vec<&[u8]>> {
    let (text, mut at) = line(data, 0)?;
    if data[0] != b'*' {
        return None;
    }
    let mut all = Vec::new();
    for _ in 0..text.parse::<usize>().ok()? {
        let end = element_end(data, at)?;
        all.push(&data[at..end]);
        at = end;
    }
    (at == data.len()).then_some(all)
}

/// The bytes of a whole bulk; inside: None for null. Outside: None when it is neither.
pub fn bulk_value(data: &[u8]) -> Option<Option<Vec<u8>>> {
    if matches!(data, b"$-1\r\n" | b"_\r\n") {
        return Some(None);
    }
    let (text, at) = line(data, 0)?;
    let length: usize = text.parse().ok()?;
    (data[0] == b'$' && data.len() == at + length + 2).then(|| Some(data[at..at + length].to_vec()))
}

pub fn integer_value(data: &[u8]) -> Option<i64> {
    let (text, end) = line(data, 0)?;
    (data[0] == b':' && end == data.len()).then(|| text.parse().ok())?
}

/// The first whole request in `data` and its length; requests of ours are always multibulk.
pub fn take_request(data: &[u8]) -> Option<(Vec<Vec<u8>>, usize)> {
    let end = element_end(data, 0)?;
    let args = elements(&data[..end]).expect("an array");
    let args = args
        .into_iter()
        .map(|arg| bulk_value(arg).flatten().expect("a bulk"));
    Some((args.collect(), end))
}

/// For people.
pub fn shown(data: &[u8]) -> String {
    let text = String::from_utf8_lossy(&data[..data.len().min(200)]).into_owned();
    format!("{text:?} ({} bytes)", data.len())
}

/// A line about a step, when a single run is looked at (`SHOAL_SIMULATION_TRACE=1`).
pub fn trace(line: impl FnOnce() -> String) {
    static IS_ON: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    if *IS_ON.get_or_init(|| std::env::var_os("SHOAL_SIMULATION_TRACE").is_some()) {
        eprintln!("{}", line());
    }
}
