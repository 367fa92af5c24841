//! Who calls from outside, and where: `[api]` with its clients, and `[rtsp]`, which lets the same in. Pure.

use std::collections::HashMap;

use super::{
    assemble::twins,
    certificate,
    fault::{At, Code},
    keys,
    kinds::Words,
    reader::{Opened, Read, Reader},
    settings::{Api, ApiClient, ApiTls, Call, Rtsp},
};
use crate::district::secret::Secret;

pub(super) fn api(reader: &mut Reader<'_>, keys: &keys::Api, call: Option<&Call>) -> Option<Api> {
    let groups = call.map(|call| call.groups.as_slice()).unwrap_or_default();
    let first = groups.first().cloned().unwrap_or_default();
    if let Some(tls) = &keys.tls
        && let (Some(cert), Some(key)) = (&tls.value.cert, &tls.value.key)
    {
        certificate::check_pair(reader, cert, key);
    }
    let clients = keys.client.as_ref()?;
    twins(reader, "api.client", clients.value.iter().filter_map(|c| c.name.as_ref()), String::as_str);
    // Of two clients with one certificate nobody could tell who calls.
    twins(reader, "certificate", clients.value.iter().filter_map(|c| c.certificate.as_ref()), String::as_str);
    for group in clients.value.iter().filter_map(|c| c.group.as_ref()) {
        if !groups.is_empty() && !groups.contains(&group.value) {
            let what = format!("{:?} is no group of [call]", group.value);
            reader.error(Code::BadValue, &group.at, what).write(format!("one of {groups:?}"));
        }
    }
    shared_tokens(reader, clients.value.iter().filter_map(|c| c.token_file.as_ref()));
    let listen = keys.listen.as_ref()?;
    let authority = keys.tls.as_ref().and_then(|tls| tls.value.client_ca.as_ref());
    authority.into_iter().for_each(|ca| certificate::check_authority(reader, ca));
    for client in &clients.value {
        match (&client.certificate, authority) {
            (Some(certificate), None) => {
                reader
                    .error(Code::Missing, &certificate.at, "nobody signs certificates of clients")
                    .write("client_ca = \"headquarters-ca.pem\" under [api.tls]");
            }
            (None, _) if client.token_file.is_none() => {
                let name = client.name.as_ref().map_or("it", |name| &name.value).to_owned();
                reader
                    .error(Code::Missing, &client.here, format!("{name} has neither a token nor a certificate"))
                    .write("token_file = \"NAME.token\", or certificate = \"COMMON NAME\"");
            }
            _ => {}
        }
    }
    if !listen.value.ip().is_loopback() {
        if keys.tls.is_none() && keys.plain_http.is_none() {
            let (words, _) = <keys::PlainHttp as Words>::WORDS[0];
            reader
                .error(Code::Exposed, &listen.at, "tokens and pictures would cross the network in clear")
                .write(format!("an [api.tls] with cert and key; or, where that is no harm, plain_http = {words:?}"));
        } else if clients.value.is_empty() {
            reader
                .warning(Code::Exposed, &listen.at, "everyone who reaches this address may see and close incidents")
                .write("an [[api.client]], tokens by `chowki token new`, or listen = \"127.0.0.1:8080\"");
        }
    }
    let tls = keys.tls.as_ref().map(|tls| {
        let path = |file: &Read<Opened>| file.value.path.clone();
        Some(ApiTls {
            cert: path(tls.value.cert.as_ref()?),
            key: path(tls.value.key.as_ref()?),
            client_ca: tls.value.client_ca.as_ref().map(path),
        })
    });
    let client = |keys: &keys::ApiClient| {
        Some(ApiClient {
            name: keys.name.as_ref()?.value.clone(),
            role: keys.role.as_ref()?.value,
            token: keys.token_file.as_ref().map(|token| token.value.clone()),
            certificate: keys.certificate.as_ref().map(|name| name.value.clone()),
            group: keys.group.as_ref().map_or_else(|| first.clone(), |group| group.value.clone()),
        })
    };
    Some(Api {
        listen: listen.value,
        tls: match tls {
            Some(tls) => Some(tls?),
            None => None,
        },
        clients: clients.value.iter().map(client).collect::<Option<_>>()?,
    })
}

/// For the clients of the API, and for everyone where there is none. What it sends is in clear: RTSP has nothing else.
pub(super) fn rtsp(reader: &mut Reader<'_>, keys: &keys::Rtsp, api: Option<&Api>) -> Option<Rtsp> {
    let listen = keys.listen.as_ref()?;
    if !listen.value.ip().is_loopback() && api.is_some_and(|api| api.clients.is_empty()) {
        reader
            .warning(Code::Exposed, &listen.at, "everyone who reaches this address may watch every camera")
            .write("an [[api.client]], or listen = \"127.0.0.1:8554\"");
    }
    Some(Rtsp { listen: listen.value })
}

/// Two clients of the API with one token: who of them calls, and with which role, could not be told.
fn shared_tokens<'k>(reader: &mut Reader<'_>, tokens: impl Iterator<Item = &'k Read<Secret>>) {
    let mut first: HashMap<&str, &At> = HashMap::new();
    for token in tokens.filter(|token| !token.value.reveal().is_empty()) {
        if let Some(earlier) = first.get(token.value.reveal()) {
            let what = format!(
                "the client whose token_file is on line {} has the same token: whose call it is could not be told",
                reader.line(earlier)
            );
            reader.error(Code::Duplicate, &token.at, what).help("put a token of its own into a file of its own");
        } else {
            first.insert(token.value.reveal(), &token.at);
        }
    }
}
