//! What a client may do: who it is, where it may publish, what it may read. Pure.
//!
//! MQTT 3.1.1 can refuse a connection (CONNACK, section 3.2.2.3) and a subscription (SUBACK 0x80, section 3.9.3), but not a
//! PUBLISH: one that is not allowed closes the connection (section 3.3.5).

use super::{
    filter,
    login::Salted,
    packet::{Connect, Will},
};
use crate::district::ids::ButtonId;

/// Why a connection is refused, with the return code that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not MQTT 3.1.1.
    #[error("not MQTT 3.1.1")]
    Version,
    /// The client id is empty, or is not the user name: both must be the id from the config.
    #[error("client id and user name must both be the id from the config")]
    Identifier,
    /// Unknown id or wrong password; which of them is not said.
    #[error("unknown id or wrong password")]
    Credentials,
    /// The certificate names another id, or is missing where the id needs one.
    #[error("the certificate's common name must be the client id")]
    Certificate,
    /// A will anywhere but on the button's own status.
    #[error("a will is allowed only on the button's own status")]
    Will,
}

impl Refusal {
    /// The CONNACK return code (section 3.2.2.3).
    pub fn code(self) -> u8 {
        match self {
            Refusal::Version => 1,
            Refusal::Identifier => 2,
            Refusal::Credentials => 4,
            Refusal::Certificate | Refusal::Will => 5,
        }
    }
}

/// What the id must show.
#[derive(Clone)]
pub enum Proof {
    /// This password, and no certificate of another id.
    Password(Salted),
    /// A verified certificate with the id as its common name.
    Certificate,
}

/// Who is at the other end, and what it may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// A button: publishes its presses and status, reads what stands below its own name.
    Button(ButtonId),
    /// A local integration: reads what these filters cover, publishes nothing.
    Integration(Vec<String>),
}

/// The name a client claims, when its parts agree: client id, user name and certificate must be one and the same.
///
/// # Errors
/// [`Refusal::Identifier`], [`Refusal::Certificate`], or [`Refusal::Credentials`] when nothing is shown at all.
pub fn claimed<'a>(connect: &Connect<'a>, certificate: Option<&str>) -> Result<&'a str, Refusal> {
    let id = connect.client_id;
    if id.is_empty() || connect.username.is_some_and(|name| name != id) {
        return Err(Refusal::Identifier);
    }
    if certificate.is_some_and(|name| name != id) {
        return Err(Refusal::Certificate);
    }
    if connect.username.is_none() && certificate.is_none() {
        return Err(Refusal::Credentials);
    }
    Ok(id)
}

/// Whether the claim is proven. An id that nobody knows is checked against `decoy`, so that it costs the same.
///
/// # Errors
/// [`Refusal::Credentials`] or [`Refusal::Certificate`].
pub fn proven(
    proof: Option<&Proof>,
    decoy: &Salted,
    password: Option<&[u8]>,
    certificate: Option<&str>,
) -> Result<(), Refusal> {
    let given = password.unwrap_or_default();
    let fine = match proof {
        Some(Proof::Certificate) => return certificate.map(|_| ()).ok_or(Refusal::Certificate),
        Some(Proof::Password(kept)) => kept.is(given) && password.is_some(),
        None => {
            let _ = decoy.is(given);
            false
        }
    };
    if fine { Ok(()) } else { Err(Refusal::Credentials) }
}

/// What a button publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uplink {
    /// `buttons/{id}/press`.
    Press,
    /// `buttons/{id}/status`.
    Status,
}

impl Role {
    /// What a PUBLISH on `topic` is; `None` when it is not this client's to publish.
    pub fn publishes(&self, topic: &str) -> Option<Uplink> {
        let Role::Button(id) = self else { return None };
        match below(id, topic)? {
            "press" => Some(Uplink::Press),
            "status" => Some(Uplink::Status),
            _ => None,
        }
    }

    /// Whether it may subscribe to `filter`.
    pub fn may_read(&self, filter: &str) -> bool {
        filter::valid(filter)
            && match self {
                Role::Button(id) => below(id, filter).is_some(),
                Role::Integration(granted) => granted.iter().any(|g| filter::covers(g, filter)),
            }
    }

    /// Whether it may leave this will.
    ///
    /// # Errors
    /// [`Refusal::Will`] for a will anywhere but on the button's own status.
    pub fn may_leave(&self, will: Option<&Will<'_>>) -> Result<(), Refusal> {
        match will {
            Some(will) if self.publishes(will.topic) != Some(Uplink::Status) => Err(Refusal::Will),
            _ => Ok(()),
        }
    }
}

fn below<'a>(id: &ButtonId, topic: &'a str) -> Option<&'a str> {
    topic.strip_prefix("buttons/")?.strip_prefix(id.as_str())?.strip_prefix('/')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{district::secret::Secret, intake::packet::Qos};

    fn connect<'a>(id: &'a str, username: Option<&'a str>) -> Connect<'a> {
        Connect { client_id: id, clean_session: true, keep_alive: 60, will: None, username, password: Some(b"p") }
    }

    #[test]
    fn client_id_user_name_and_certificate_must_be_one() {
        assert_eq!(claimed(&connect("b1", Some("b1")), None), Ok("b1"));
        assert_eq!(claimed(&connect("b1", None), Some("b1")), Ok("b1"));
        assert_eq!(claimed(&connect("b1", Some("b2")), None), Err(Refusal::Identifier));
        assert_eq!(claimed(&connect("", Some("")), None), Err(Refusal::Identifier));
        assert_eq!(claimed(&connect("b1", Some("b1")), Some("b2")), Err(Refusal::Certificate));
        assert_eq!(claimed(&connect("b1", None), None), Err(Refusal::Credentials));
    }

    #[test]
    fn an_unknown_id_is_refused_like_a_wrong_password() {
        let kept = Salted::new(&Secret::new("p"), [1; 16]);
        let decoy = Salted::new(&Secret::new("p"), [2; 16]);
        let known = Proof::Password(kept);
        assert_eq!(proven(Some(&known), &decoy, Some(b"p"), None), Ok(()));
        assert_eq!(proven(Some(&known), &decoy, Some(b"q"), None), Err(Refusal::Credentials));
        assert_eq!(proven(Some(&known), &decoy, None, Some("b1")), Err(Refusal::Credentials));
        assert_eq!(proven(None, &decoy, Some(b"p"), None), Err(Refusal::Credentials));
        assert_eq!(proven(Some(&Proof::Certificate), &decoy, Some(b"p"), None), Err(Refusal::Certificate));
        assert_eq!(proven(Some(&Proof::Certificate), &decoy, None, Some("b1")), Ok(()));
    }

    #[test]
    fn an_empty_password_is_not_a_missing_one() {
        let empty = Proof::Password(Salted::new(&Secret::new(""), [1; 16]));
        let decoy = Salted::new(&Secret::new(""), [2; 16]);
        assert_eq!(proven(Some(&empty), &decoy, None, None), Err(Refusal::Credentials));
    }

    #[test]
    fn a_button_publishes_only_its_own_press_and_status() {
        let b = Role::Button("b1".parse().unwrap());
        assert_eq!(b.publishes("buttons/b1/press"), Some(Uplink::Press));
        assert_eq!(b.publishes("buttons/b1/status"), Some(Uplink::Status));
        for topic in ["buttons/b2/press", "buttons/b1/state", "buttons/b11/press", "buttons/b1", "b1/press", "$SYS/x"] {
            assert_eq!(b.publishes(topic), None, "{topic}");
        }
    }

    #[test]
    fn a_button_reads_only_below_its_own_name() {
        let b = Role::Button("b1".parse().unwrap());
        for good in ["buttons/b1/state", "buttons/b1/#", "buttons/b1/+"] {
            assert!(b.may_read(good), "{good}");
        }
        for bad in
            ["#", "buttons/#", "buttons/+/state", "buttons/b2/state", "$share/g/buttons/b1/state", "buttons/b1/a#"]
        {
            assert!(!b.may_read(bad), "{bad}");
        }
    }

    #[test]
    fn an_integration_reads_what_it_was_granted_and_publishes_nothing() {
        let siren = Role::Integration(vec!["buttons/+/state".into()]);
        assert!(siren.may_read("buttons/b1/state") && siren.may_read("buttons/+/state"));
        assert!(!siren.may_read("buttons/+/press") && !siren.may_read("#"));
        assert!(!siren.may_read("$share/g/buttons/+/state"));
        assert_eq!(siren.publishes("buttons/b1/press"), None);
    }

    #[test]
    fn a_will_is_allowed_only_on_the_buttons_own_status() {
        let b = Role::Button("b1".parse().unwrap());
        let on = |topic| Will { topic, payload: b"", qos: Qos::One, retain: true };
        assert_eq!(b.may_leave(Some(&on("buttons/b1/status"))), Ok(()));
        assert_eq!(b.may_leave(Some(&on("buttons/b1/press"))), Err(Refusal::Will));
        assert_eq!(b.may_leave(Some(&on("buttons/b2/status"))), Err(Refusal::Will));
        assert_eq!(Role::Integration(vec!["#".into()]).may_leave(Some(&on("buttons/b1/status"))), Err(Refusal::Will));
    }
}
