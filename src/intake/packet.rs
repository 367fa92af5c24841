//! MQTT 3.1.1 control packets as a server reads and writes them (OASIS mqtt-v3.1.1-os). Borrows from the read buffer,
//! allocates only for lists of filters, and refuses a packet as soon as its first bytes show that it is wrong. Pure.

use std::num::NonZeroU16;

/// Largest packet taken, fixed header included, in bytes. Nothing larger is ever buffered.
pub const MAX_PACKET: usize = 16 * 1024;

/// A packet identifier (section 2.3.1); never zero.
pub type Pid = NonZeroU16;

/// Quality of service (section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Qos {
    /// At most once.
    Zero,
    /// At least once.
    One,
    /// Exactly once.
    Two,
}

/// A packet from a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet<'a> {
    /// Section 3.1.
    Connect(Box<Connect<'a>>),
    /// Section 3.3.
    Publish(Publish<'a>),
    /// Section 3.4.
    PubAck(Pid),
    /// Section 3.5.
    PubRec(Pid),
    /// Section 3.6.
    PubRel(Pid),
    /// Section 3.7.
    PubComp(Pid),
    /// Section 3.8: topic filters with the requested quality.
    Subscribe(Pid, Vec<(&'a str, Qos)>),
    /// Section 3.10.
    Unsubscribe(Pid, Vec<&'a str>),
    /// Section 3.12.
    PingReq,
    /// Section 3.14.
    Disconnect,
}

/// What a client says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect<'a> {
    /// Client identifier; may be empty.
    pub client_id: &'a str,
    /// Whether to forget the session before and after.
    pub clean_session: bool,
    /// Longest silence the client promises, in seconds; 0 promises nothing.
    pub keep_alive: u16,
    /// What to publish when it vanishes.
    pub will: Option<Will<'a>>,
    /// User name.
    pub username: Option<&'a str>,
    /// Password: any bytes.
    pub password: Option<&'a [u8]>,
}

/// A will (section 3.1.2.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will<'a> {
    /// Where it goes.
    pub topic: &'a str,
    /// What it says.
    pub payload: &'a [u8],
    /// With which quality.
    pub qos: Qos,
    /// Whether it is retained.
    pub retain: bool,
}

/// A message from a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Topic name, without wildcards.
    pub topic: &'a str,
    /// Any bytes.
    pub payload: &'a [u8],
    /// Quality, with the packet identifier where it has one.
    pub qos: Qos,
    /// Packet identifier: `Some` exactly for quality 1 and 2.
    pub pid: Option<Pid>,
    /// Whether this may be a repeat.
    pub dup: bool,
    /// Whether it is to be retained.
    pub retain: bool,
}

/// What is wrong with a packet. Each closes the connection (section 4.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The remaining length takes more than four bytes (section 2.2.3).
    #[error("a remaining length of more than four bytes")]
    Length,
    /// Larger than [`MAX_PACKET`].
    #[error("a packet of {0} bytes, more than {MAX_PACKET}")]
    TooLarge(usize),
    /// A type that is reserved, or that only a server sends.
    #[error("packet type {0}, which a client never sends")]
    Type(u8),
    /// Flags of the fixed header that the type does not allow (section 2.2.2).
    #[error("fixed header {0:#04x} with flags that its type does not allow")]
    Flags(u8),
    /// A field reaches beyond the end of the packet.
    #[error("a field that reaches beyond the end of its packet")]
    Short,
    /// Bytes after the last field.
    #[error("bytes after the last field of a packet")]
    Trailing,
    /// A string that is not UTF-8 or holds U+0000 (section 1.5.3).
    #[error("a text that is not UTF-8, or holds U+0000")]
    Text,
    /// A packet identifier of zero (section 2.3.1).
    #[error("packet identifier zero")]
    PacketId,
    /// Quality 3 (sections 3.1.2.6, 3.3.1.2, 3.8.3).
    #[error("quality of service 3")]
    Qos,
    /// A topic name that is empty or holds a wildcard (section 3.3.2.1).
    #[error("a topic name that is empty or holds a wildcard")]
    Topic,
    /// SUBSCRIBE or UNSUBSCRIBE without a filter.
    #[error("a subscription to nothing")]
    NoFilter,
    /// Not MQTT at all.
    #[error("a protocol name that is not MQTT")]
    Protocol,
    /// MQTT, but not 3.1.1: answered with return code 1.
    #[error("MQTT protocol level {0}; only 4 (MQTT 3.1.1) is spoken here")]
    Version(u8),
    /// Connect flags that contradict each other (section 3.1.2.3).
    #[error("connect flags {0:#04x} that contradict each other")]
    ConnectFlags(u8),
}

/// Reads the first packet of `bytes`. `Ok(None)` when more bytes are needed; with the packet comes how many bytes it took.
///
/// # Errors
/// A [`Fault`] as soon as it shows, before the packet is whole where possible.
pub fn decode(bytes: &[u8]) -> Result<Option<(Packet<'_>, usize)>, Fault> {
    let Some(&head) = bytes.first() else { return Ok(None) };
    check_head(head)?;
    let Some((length, header)) = remaining_length(&bytes[1..])? else { return Ok(None) };
    let total = 1 + header + length;
    if total > MAX_PACKET {
        return Err(Fault::TooLarge(total));
    }
    let Some(body) = bytes.get(1 + header..total) else { return Ok(None) };
    let mut fields = Fields(body);
    let packet = match head >> 4 {
        1 => Packet::Connect(Box::new(fields.connect()?)),
        3 => Packet::Publish(fields.publish(head)?),
        4 => Packet::PubAck(fields.pid()?),
        5 => Packet::PubRec(fields.pid()?),
        6 => Packet::PubRel(fields.pid()?),
        7 => Packet::PubComp(fields.pid()?),
        8 => fields.subscribe()?,
        10 => fields.unsubscribe()?,
        12 => Packet::PingReq,
        14 => Packet::Disconnect,
        other => return Err(Fault::Type(other)),
    };
    if !fields.0.is_empty() {
        return Err(Fault::Trailing);
    }
    Ok(Some((packet, total)))
}

fn check_head(head: u8) -> Result<(), Fault> {
    let (kind, flags) = (head >> 4, head & 0x0f);
    match kind {
        3 if flags & 0b0110 == 0b0110 => Err(Fault::Qos),
        // [MQTT-3.3.1-2]: quality 0 is never a repeat.
        3 if flags & 0b1110 == 0b1000 => Err(Fault::Flags(head)),
        3 => Ok(()),
        6 | 8 | 10 if flags == 0b0010 => Ok(()),
        6 | 8 | 10 => Err(Fault::Flags(head)),
        1 | 4 | 5 | 7 | 12 | 14 if flags == 0 => Ok(()),
        1 | 4 | 5 | 7 | 12 | 14 => Err(Fault::Flags(head)),
        other => Err(Fault::Type(other)),
    }
}

/// Section 2.2.3: seven bits a byte, the lowest first. Gives the length and how many bytes said so.
fn remaining_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, Fault> {
    let mut length = 0;
    for (i, &b) in bytes.iter().take(4).enumerate() {
        length |= usize::from(b & 0x7f) << (7 * i);
        if b & 0x80 == 0 {
            return Ok(Some((length, i + 1)));
        }
    }
    if bytes.len() >= 4 { Err(Fault::Length) } else { Ok(None) }
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], Fault> {
        let (head, tail) = self.0.split_at_checked(n).ok_or(Fault::Short)?;
        self.0 = tail;
        Ok(head)
    }
    fn byte(&mut self) -> Result<u8, Fault> {
        self.take(1).map(|b| b[0])
    }
    fn word(&mut self) -> Result<u16, Fault> {
        self.take(2).map(|b| u16::from_be_bytes([b[0], b[1]]))
    }
    fn pid(&mut self) -> Result<Pid, Fault> {
        Pid::new(self.word()?).ok_or(Fault::PacketId)
    }
    fn bytes(&mut self) -> Result<&'a [u8], Fault> {
        let n = self.word()?;
        self.take(usize::from(n))
    }
    fn text(&mut self) -> Result<&'a str, Fault> {
        let text = std::str::from_utf8(self.bytes()?).map_err(|_| Fault::Text)?;
        if text.contains('\0') { Err(Fault::Text) } else { Ok(text) }
    }
    fn topic(&mut self) -> Result<&'a str, Fault> {
        let topic = self.text()?;
        if topic.is_empty() || topic.contains(['+', '#']) { Err(Fault::Topic) } else { Ok(topic) }
    }

    fn connect(&mut self) -> Result<Connect<'a>, Fault> {
        let name = self.bytes()?;
        let level = self.byte()?;
        match (name, level) {
            (b"MQTT", 4) => {}
            (b"MQTT" | b"MQIsdp", other) => {
                // The rest may be laid out in a way only that version knows.
                return Err(Fault::Version(other));
            }
            _ => return Err(Fault::Protocol),
        }
        let flags = self.byte()?;
        let has = |bit: u8| flags & (1 << bit) != 0;
        let will_qos = qos(flags >> 3 & 0b11)?;
        let will_is_half = !has(2) && (has(5) || will_qos != Qos::Zero);
        if has(0) || will_is_half || (has(6) && !has(7)) {
            return Err(Fault::ConnectFlags(flags));
        }
        let keep_alive = self.word()?;
        let client_id = self.text()?;
        let will = if has(2) {
            Some(Will { topic: self.topic()?, payload: self.bytes()?, qos: will_qos, retain: has(5) })
        } else {
            None
        };
        let username = if has(7) { Some(self.text()?) } else { None };
        let password = if has(6) { Some(self.bytes()?) } else { None };
        Ok(Connect { client_id, clean_session: has(1), keep_alive, will, username, password })
    }

    fn publish(&mut self, head: u8) -> Result<Publish<'a>, Fault> {
        let qos = qos(head >> 1 & 0b11)?;
        let topic = self.topic()?;
        let pid = if qos == Qos::Zero { None } else { Some(self.pid()?) };
        let payload = std::mem::take(&mut self.0);
        Ok(Publish { topic, payload, qos, pid, dup: head & 0b1000 != 0, retain: head & 1 != 0 })
    }

    fn subscribe(&mut self) -> Result<Packet<'a>, Fault> {
        let pid = self.pid()?;
        let mut filters = Vec::new();
        while !self.0.is_empty() {
            let filter = self.text()?;
            filters.push((filter, qos(self.byte()?)?));
        }
        if filters.is_empty() { Err(Fault::NoFilter) } else { Ok(Packet::Subscribe(pid, filters)) }
    }

    fn unsubscribe(&mut self) -> Result<Packet<'a>, Fault> {
        let pid = self.pid()?;
        let mut filters = Vec::new();
        while !self.0.is_empty() {
            filters.push(self.text()?);
        }
        if filters.is_empty() { Err(Fault::NoFilter) } else { Ok(Packet::Unsubscribe(pid, filters)) }
    }
}

fn qos(bits: u8) -> Result<Qos, Fault> {
    match bits {
        0 => Ok(Qos::Zero),
        1 => Ok(Qos::One),
        2 => Ok(Qos::Two),
        _ => Err(Fault::Qos),
    }
}

/// Writes CONNACK (section 3.2).
pub fn connack(out: &mut Vec<u8>, session_present: bool, code: u8) {
    out.extend_from_slice(&[0x20, 2, u8::from(session_present), code]);
}

/// Writes PUBACK (section 3.4).
pub fn puback(out: &mut Vec<u8>, pid: Pid) {
    short(out, 0x40, pid);
}

/// Writes PUBREC (section 3.5).
pub fn pubrec(out: &mut Vec<u8>, pid: Pid) {
    short(out, 0x50, pid);
}

/// Writes PUBCOMP (section 3.7).
pub fn pubcomp(out: &mut Vec<u8>, pid: Pid) {
    short(out, 0x70, pid);
}

/// Writes UNSUBACK (section 3.11).
pub fn unsuback(out: &mut Vec<u8>, pid: Pid) {
    short(out, 0xb0, pid);
}

/// Writes PINGRESP (section 3.13).
pub fn pingresp(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xd0, 0]);
}

/// Writes SUBACK (section 3.9): granted quality, or `None` for refused.
pub fn suback(out: &mut Vec<u8>, pid: Pid, granted: &[Option<Qos>]) {
    out.push(0x90);
    length(out, 2 + granted.len());
    out.extend_from_slice(&pid.get().to_be_bytes());
    out.extend(granted.iter().map(|g| g.map_or(0x80, |q| q as u8)));
}

/// Writes PUBLISH (section 3.3): quality 1 with a packet identifier, quality 0 without.
pub fn publish(out: &mut Vec<u8>, topic: &[u8], payload: &[u8], pid: Option<Pid>, dup: bool, retain: bool) {
    let flags = u8::from(dup) << 3 | u8::from(pid.is_some()) << 1 | u8::from(retain);
    out.push(0x30 | flags);
    length(out, 2 + topic.len() + if pid.is_some() { 2 } else { 0 } + payload.len());
    let name = u16::try_from(topic.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&name.to_be_bytes());
    out.extend_from_slice(&topic[..usize::from(name)]);
    if let Some(pid) = pid {
        out.extend_from_slice(&pid.get().to_be_bytes());
    }
    out.extend_from_slice(payload);
}

fn short(out: &mut Vec<u8>, head: u8, pid: Pid) {
    let [high, low] = pid.get().to_be_bytes();
    out.extend_from_slice(&[head, 2, high, low]);
}

fn length(out: &mut Vec<u8>, mut n: usize) {
    loop {
        let low = (n & 0x7f) as u8;
        n >>= 7;
        if n == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CONNECT: &[u8] = b"\x10\x15\0\x04MQTT\x04\xc2\0\x3c\0\x02b1\0\x02b1\0\x01p";

    #[test]
    fn a_connect_with_login_is_read() {
        let (packet, used) = decode(CONNECT).unwrap().unwrap();
        assert_eq!(used, CONNECT.len());
        let Packet::Connect(c) = packet else { panic!() };
        assert_eq!((c.client_id, c.username, c.password), ("b1", Some("b1"), Some(&b"p"[..])));
        assert!(c.clean_session && c.keep_alive == 60 && c.will.is_none());
    }

    #[test]
    fn every_prefix_of_a_packet_asks_for_more() {
        for n in 0..CONNECT.len() {
            assert_eq!(decode(&CONNECT[..n]), Ok(None), "{n} bytes");
        }
    }

    #[test]
    fn every_kind_of_malformed_packet_has_its_fault() {
        let cases: &[(&[u8], Fault)] = &[
            (b"\x00", Fault::Type(0)),
            (b"\xf0", Fault::Type(15)),
            (b"\x20\x02\0\0", Fault::Type(2)),
            (b"\x90\x03\0\x01\0", Fault::Type(9)),
            (b"\xb0\x02\0\x01", Fault::Type(11)),
            (b"\xd0\x00", Fault::Type(13)),
            (b"\x11", Fault::Flags(0x11)),
            (b"\x38", Fault::Flags(0x38)),
            (b"\x36", Fault::Qos),
            (b"\x41", Fault::Flags(0x41)),
            (b"\x51", Fault::Flags(0x51)),
            (b"\x60", Fault::Flags(0x60)),
            (b"\x71", Fault::Flags(0x71)),
            (b"\x80", Fault::Flags(0x80)),
            (b"\xa0", Fault::Flags(0xa0)),
            (b"\xc1", Fault::Flags(0xc1)),
            (b"\xe1", Fault::Flags(0xe1)),
            (b"\x30\xff\xff\xff\xff", Fault::Length),
            (b"\x30\xff\xff\x7f", Fault::TooLarge(2_097_151 + 4)),
            (b"\x10\x04\0\x04MQ", Fault::Short),
            (b"\x10\x07\0\x04HTTP\x04", Fault::Protocol),
            (b"\x10\x07\0\x04MQTT\x05", Fault::Version(5)),
            (b"\x10\x09\0\x06MQIsdp\x03", Fault::Version(3)),
            (b"\x10\x0c\0\x04MQTT\x04\x01\0\0\0\0", Fault::ConnectFlags(1)),
            (b"\x10\x0c\0\x04MQTT\x04\x20\0\0\0\0", Fault::ConnectFlags(0x20)),
            (b"\x10\x0c\0\x04MQTT\x04\x40\0\0\0\0", Fault::ConnectFlags(0x40)),
            (b"\x10\x0c\0\x04MQTT\x04\x1c\0\0\0\0", Fault::Qos),
            (b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\0x", Fault::Trailing),
            (b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01\0", Fault::Text),
            (b"\x30\x02\0\0", Fault::Topic),
            (b"\x30\x03\0\x01#", Fault::Topic),
            (b"\x30\x03\0\x01\xff", Fault::Text),
            (b"\x30\x03\0\x09a", Fault::Short),
            (b"\x32\x05\0\x01a\0\0", Fault::PacketId),
            (b"\x32\x03\0\x01a", Fault::Short),
            (b"\x40\x02\0\0", Fault::PacketId),
            (b"\x40\x03\0\x01x", Fault::Trailing),
            (b"\x40\x01\0", Fault::Short),
            (b"\x50\x02\0\0", Fault::PacketId),
            (b"\x62\x02\0\0", Fault::PacketId),
            (b"\x70\x02\0\0", Fault::PacketId),
            (b"\x82\x02\0\x01", Fault::NoFilter),
            (b"\x82\x06\0\x01\0\x01a\x03", Fault::Qos),
            (b"\x82\x05\0\x01\0\x01a", Fault::Short),
            (b"\xa2\x02\0\x01", Fault::NoFilter),
            (b"\xc0\x01x", Fault::Trailing),
            (b"\xe0\x01x", Fault::Trailing),
        ];
        for (bytes, fault) in cases {
            assert_eq!(decode(bytes), Err(*fault), "{bytes:02x?}");
        }
    }

    #[test]
    fn a_packet_too_large_is_refused_from_its_header_alone() {
        assert!(matches!(decode(b"\x30\x80\x80\x02"), Err(Fault::TooLarge(32_772))));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_the_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(Some((_, used))) = decode(&bytes) {
                prop_assert!(used <= bytes.len());
            }
        }

        #[test]
        fn no_changed_byte_panics_the_decoder(at in 0..CONNECT.len(), to in any::<u8>()) {
            let mut bytes = CONNECT.to_vec();
            bytes[at] = to;
            let _ = decode(&bytes);
        }

        #[test]
        fn a_publish_written_is_the_publish_read(
            topic in "[a-z/]{1,40}",
            payload in proptest::collection::vec(any::<u8>(), 0..600),
            pid in proptest::option::of(1u16..),
            retain: bool,
        ) {
            let pid = pid.and_then(Pid::new);
            let mut out = Vec::new();
            publish(&mut out, topic.as_bytes(), &payload, pid, pid.is_some(), retain);
            let (packet, used) = decode(&out).unwrap().unwrap();
            prop_assert_eq!(used, out.len());
            let qos = if pid.is_some() { Qos::One } else { Qos::Zero };
            let expected = Publish { topic: &topic, payload: &payload, qos, pid, dup: pid.is_some(), retain };
            prop_assert_eq!(packet, Packet::Publish(expected));
        }
    }
}
