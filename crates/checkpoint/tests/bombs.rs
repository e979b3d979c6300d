//! Small files that would take much time or memory if anything in them were copied as often as it is named.

mod common;

use sdft_checkpoint::{ReadOptions, Wanted, read_bytes};
use sdft_counting_alloc::{CountingAllocator, Measurement};

#[global_allocator]
static MEMORY: CountingAllocator = CountingAllocator::new();

/// What any reader may take: 16 times the file and 64 MB, and 5 s for a file under 1 MB.
fn assert_bounded(memory: &Measurement<'_>, what: &str, bytes: &[u8]) {
    for wanted in [None, Some(WANTED)] {
        let options = ReadOptions {
            wanted,
            ..ReadOptions::default()
        };
        let started = std::time::Instant::now();
        let (result, peak) = memory.peak_of(|| read_bytes(what, bytes, &options).map(drop));
        let taken = started.elapsed().as_secs_f64();
        let most = 16 * bytes.len() + (64 << 20);
        assert!(
            peak < most,
            "{what}: {} bytes took {peak} of {most}",
            bytes.len()
        );
        assert!(
            taken < 5.0 * (bytes.len() as f64 / 1e6).max(1.0),
            "{what}: {taken} s"
        );
        if let Err(error) = result {
            let text = error.to_string();
            assert!(
                text.len() < 4000,
                "{what}: a message of {} bytes",
                text.len()
            );
        }
    }
}

const WANTED: Wanted = Wanted {
    marks: &["w"],
    fits: |shapes| shapes.len() > 1,
};

/// An old container around the opcodes of a pickle.
fn around(pickle: &[u8]) -> Vec<u8> {
    let mut out = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.".to_vec();
    out.extend(b"\x80\x02M\xe9\x03.\x80\x02}.\x80\x04");
    out.extend(pickle);
    out.extend(b".\x80\x02](X\x01\0\0\x000e.");
    out.extend(1u64.to_le_bytes());
    out.extend(1f32.to_le_bytes());
    out
}

/// A text of `len` bytes, remembered as `key`.
fn text(len: usize, key: u8) -> Vec<u8> {
    let mut out = vec![b'X'];
    out.extend((len as u32).to_le_bytes());
    out.extend(vec![b'k'; len]);
    out.extend([b'q', key, b'0']);
    out
}

/// A tensor of one number with `rank` axes, remembered as 5; what it is made of as 1, its storage's identifier as 2.
fn tensor(rank: usize) -> Vec<u8> {
    let mut out = b"ctorch._utils\n_rebuild_tensor_v2\nq\x00((".to_vec();
    out.extend(
        b"X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x01tq\x02QK\0(",
    );
    out.extend(b"K\x01".repeat(rank));
    out.extend(b"t(");
    out.extend(b"K\x01".repeat(rank));
    out.extend(b"t\x89}tq\x01Rq\x050");
    out
}

/// Small files that would take much time or memory if anything in them were copied as often as it is named.
fn bombs(size: usize) -> Vec<(&'static str, Vec<u8>)> {
    let join = |parts: &[&[u8]]| around(&parts.concat());
    let many = |opcodes: &[u8], bytes: usize| opcodes.repeat(bytes / opcodes.len());
    let numbered = |i: usize, rest: &[u8]| {
        let name = format!("{i:x}");
        let mut out = vec![0x8c, name.len() as u8];
        out.extend(name.as_bytes());
        out.extend(rest);
        out
    };
    let half = size / 2;
    let dictionary = b"ccollections\nOrderedDict\nq\x07";
    let pair = b"K\x01K\x01\x86q\x080";
    let entries = |rest: &[u8]| {
        (0..size / 10)
            .flat_map(|i| numbered(i, rest))
            .collect::<Vec<u8>>()
    };
    let list = many(b"h\x08", half);
    let json = |header: String| {
        let mut out = (header.len() as u64).to_le_bytes().to_vec();
        out.extend(header.into_bytes());
        out
    };
    let repeated = |unit: &str| unit.repeat(size / unit.len());
    vec![
        (
            "a list that is copied by every call",
            join(&[
                dictionary,
                pair,
                b"](",
                &list,
                b"eq\x090",
                &many(b"h\x07h\x09\x85R0", half),
                b"N",
            ]),
        ),
        (
            "a list without pairs that every call looks through",
            join(&[
                dictionary,
                b"](",
                &many(b"K\x01", half / 2),
                b"e\x85q\x090",
                &many(b"h\x07h\x09R0", half),
                b"N",
            ]),
        ),
        (
            "names that are compared on every call",
            join(&[
                &(0..63u8)
                    .flat_map(|i| {
                        let name = format!("{}{i:03}", "n".repeat(500));
                        format!("c{name}\n{name}\n)R0").into_bytes()
                    })
                    .collect::<Vec<u8>>(),
                format!("c{0}\n{0}\nq\x010", "n".repeat(500) + "062").as_bytes(),
                &many(b"h\x01)R0", size),
                b"N",
            ]),
        ),
        (
            "lists that hold the one before twice",
            join(&[&tensor(1), b"h\x05q\x09", &many(b"h\x09\x86q\x09", half)]),
        ),
        (
            "dictionaries that hold the one before twice",
            join(&[
                &tensor(1),
                b"h\x05q\x090",
                &many(b"(X\x01\0\0\0ah\x09X\x01\0\0\0bh\x09dq\x090", half),
                b"h\x09",
            ]),
        ),
        (
            "arguments that are copied by every call",
            join(&[
                b"(",
                &many(b"N", half),
                b"tq\x01cx\ny\nq\x02",
                &many(b"h\x02h\x01R0", half),
                b"N",
            ]),
        ),
        (
            "a long key on the way to every dictionary",
            join(&[
                &tensor(1),
                &text(half, 6),
                b"}(",
                &many(b"h\x06}h\x06h\x05s", half),
                b"u",
            ]),
        ),
        (
            "long keys inside each other",
            join(&[
                &tensor(1),
                &text(half, 6),
                &many(b"}h\x06", half),
                b"h\x05",
                &many(b"s", half / 3),
            ]),
        ),
        (
            "a long name of a function",
            join(&[&text(half, 6), &many(b"h\x06h\x06\x93)R0", half), b"N"]),
        ),
        ("empty dictionaries", join(&[&many(b"}", size)])),
        (
            "empty dictionaries in a list",
            join(&[b"](", &many(b"}", size), b"e"]),
        ),
        (
            "nested lists",
            join(&[&many(b"]", half), &many(b"a", half)]),
        ),
        ("marks", join(&[&many(b"(", size), b"N"])),
        ("small numbers", join(&[b"](", &many(b"K\x01", size), b"e"])),
        ("nothing over and over", join(&[&many(b"N", size)])),
        ("a memo of nothing", join(&[b"N", &many(&[0x94], size)])),
        (
            "storages with a long key",
            join(&[
                &text(half, 6),
                b"(X\x07\0\0\0storagectorch\nFloatStorage\nh\x06NK\x01tq\x07",
                &many(b"h\x07Q0", half),
                b"N",
            ]),
        ),
        (
            "one tensor made again and again",
            join(&[&tensor(16), &many(b"h\x00h\x01R0", size), b"N"]),
        ),
        (
            "one tensor under many names",
            join(&[
                &tensor(16),
                b"}(",
                &entries(b"h\x05"),
                b"X\x01\0\0\0wh\x05X\x03\0\0\0x.wh\x05u",
            ]),
        ),
        (
            "one tensor in many lists",
            join(&[&tensor(4), b"](", &many(b"]h\x05a", size), b"e"]),
        ),
        (
            "the mark behind many prefixes",
            join(&[
                &tensor(1),
                b"}(",
                &(0..size / 12)
                    .flat_map(|i| {
                        let name = format!("{i:x}.w");
                        let mut out = vec![0x8c, name.len() as u8];
                        out.extend(name.as_bytes());
                        out.extend(b"h\x05");
                        out
                    })
                    .collect::<Vec<u8>>(),
                b"u",
            ]),
        ),
        ("a long text of broken letters", {
            let mut body = vec![b'X'];
            body.extend((size as u32).to_le_bytes());
            body.extend(vec![0xff; size]);
            around(&body)
        }),
        (
            "a shape of many sizes",
            json(format!(
                "{{\"a\":{{\"dtype\":\"F32\",\"shape\":[{}1],\"data_offsets\":[0,0]}}}}",
                repeated("1,")
            )),
        ),
        ("metadata of many fields", {
            let fields: String = (0..size / 10).map(|i| format!("\"{i:x}\":\"\",")).collect();
            json(format!("{{\"__metadata__\":{{{fields}\"z\":\"\"}}}}"))
        }),
        (
            "lists in lists in a header",
            json(format!("{{\"a\":{}", repeated("["))),
        ),
        ("many tensors of nothing", {
            let fields: String = (0..size / 60)
                .map(|i| {
                    format!("\"{i:x}\":{{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}},")
                })
                .collect();
            json(format!(
                "{{{fields}\"w\":{{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}}}"
            ))
        }),
        ("bytes that become long integers", {
            let header = format!(
                "{{\"w\":{{\"dtype\":\"I8\",\"shape\":[{size}],\"data_offsets\":[0,{size}]}}}}"
            );
            let mut out = json(header);
            out.extend(vec![1; size]);
            out
        }),
        ("an index of many tensors", {
            let fields: String = (0..size / 10)
                .map(|i| format!("\"{i:x}\":\"f\","))
                .collect();
            format!("{{\"weight_map\":{{{fields}\"z\":\"f\"}}}}").into_bytes()
        }),
        ("an archive of many entries", {
            let entry = |i: usize| (format!("a/data/{i}"), Vec::new());
            let count = (size / 110).min(60_000);
            let mut all = vec![("a/data.pkl".to_owned(), b"\x80\x02}.".to_vec())];
            all.extend((0..count).map(entry));
            common::archive(&all)
        }),
    ]
}

#[test]
fn small_files_never_take_much_time_or_memory() {
    let memory = MEMORY.exclusive();
    for (what, bytes) in bombs(900_000) {
        assert_bounded(&memory, what, &bytes);
    }
}

#[test]
fn larger_ones_take_a_multiple_of_their_size() {
    let memory = MEMORY.exclusive();
    for (what, bytes) in bombs(4_000_000) {
        assert_bounded(&memory, what, &bytes);
    }
}
