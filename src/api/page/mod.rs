//! The console page: static files in the binary, without a build step. Pure.
//!
//! Served with the header [`CONTENT_SECURITY_POLICY`], the page loads nothing from anywhere else and runs no inline
//! script.

/// One file of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asset {
    /// Path on the gateway, from the root.
    pub path: &'static str,
    /// For `Content-Type`.
    pub content_type: &'static str,
    /// The file.
    pub bytes: &'static [u8],
}

/// For the header of that name, with every asset: only our own scripts, styles and connections; pictures that play
/// come as blobs.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; media-src 'self' blob:; img-src 'self' data:; \
     object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// The service worker of units' pages: it may serve them although it stands elsewhere.
pub const UNIT_WORKER: &str = "/page/unit-worker.js";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const PICTURE: &str = "image/svg+xml";

macro_rules! assets {
    ($($path:literal, $file:literal, $content_type:ident;)*) => {
        &[$(Asset { path: $path, content_type: $content_type, bytes: include_bytes!($file) }),*]
    };
}

/// Every file of the page.
pub const ASSETS: &[Asset] = assets! {
    "/", "index.html", HTML;
    "/page/app.js", "app.js", SCRIPT;
    "/page/alarm.js", "alarm.js", SCRIPT;
    "/page/api.js", "api.js", SCRIPT;
    "/page/call.js", "call.js", SCRIPT;
    "/page/callbar.js", "callbar.js", SCRIPT;
    "/page/calls.js", "calls.js", SCRIPT;
    "/page/desk.js", "desk.js", SCRIPT;
    "/page/dialog.js", "dialog.js", SCRIPT;
    "/page/dom.js", "dom.js", SCRIPT;
    "/page/en.js", "en.js", SCRIPT;
    "/page/header.js", "header.js", SCRIPT;
    "/page/ice.js", "ice.js", SCRIPT;
    "/page/incident.js", "incident.js", SCRIPT;
    "/page/list.js", "list.js", SCRIPT;
    "/page/live.js", "live.js", SCRIPT;
    "/page/map.js", "map.js", SCRIPT;
    "/page/microphone.js", "microphone.js", SCRIPT;
    "/page/mp4.js", "mp4.js", SCRIPT;
    "/page/player.js", "player.js", SCRIPT;
    "/page/ringing.js", "ringing.js", SCRIPT;
    "/page/strings.js", "strings.js", SCRIPT;
    "/page/switchboard.js", "switchboard.js", SCRIPT;
    "/page/tiles.js", "tiles.js", SCRIPT;
    "/page/timebar.js", "timebar.js", SCRIPT;
    "/page/unit.js", "unit.js", SCRIPT;
    "/page/unit-worker.js", "unit-worker.js", SCRIPT;
    "/page/unitline.js", "unitline.js", SCRIPT;
    "/page/unitpress.js", "unitpress.js", SCRIPT;
    "/page/unitprompts.js", "unitprompts.js", SCRIPT;
    "/page/unitstate.js", "unitstate.js", SCRIPT;
    "/page/ur.js", "ur.js", SCRIPT;
    "/page/call.css", "call.css", STYLE;
    "/page/incident.css", "incident.css", STYLE;
    "/page/map.css", "map.css", STYLE;
    "/page/side.css", "side.css", STYLE;
    "/page/style.css", "style.css", STYLE;
    "/page/unit.css", "unit.css", STYLE;
    "/page/icon.svg", "icon.svg", PICTURE;
    "/page/icon-ringing.svg", "icon-ringing.svg", PICTURE;
    "/page/unit.html", "unit.html", HTML;
    "/page/unit-answered.svg", "unit-answered.svg", PICTURE;
    "/page/unit-calling.svg", "unit-calling.svg", PICTURE;
    "/page/unit-coming.svg", "unit-coming.svg", PICTURE;
    "/page/unit-ended.svg", "unit-ended.svg", PICTURE;
    "/page/unit-hold.svg", "unit-hold.svg", PICTURE;
    "/page/unit-lost.svg", "unit-lost.svg", PICTURE;
    "/page/unit-offline.svg", "unit-offline.svg", PICTURE;
    "/page/unit-ready.svg", "unit-ready.svg", PICTURE;
    "/page/unit-reached.svg", "unit-reached.svg", PICTURE;
};

/// The file at a path, if it is one of the page's.
pub fn asset(path: &str) -> Option<Asset> {
    ASSETS.iter().find(|asset| asset.path == path).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_that_the_page_names_is_served() {
        for asset in ASSETS {
            let text = std::str::from_utf8(asset.bytes).unwrap();
            for quoted in text.split(['"', '\'']) {
                let name = quoted.strip_prefix("./").map(|n| format!("/page/{n}")).unwrap_or(quoted.to_owned());
                let is_file = name.starts_with("/page/") && !name.contains(char::is_whitespace);
                assert!(!is_file || super::asset(&name).is_some(), "{} names {name}", asset.path);
            }
        }
    }

    #[test]
    fn all_that_a_units_page_loads_is_kept_for_when_the_gateway_is_away() {
        let worker = std::str::from_utf8(asset("/page/unit-worker.js").unwrap().bytes).unwrap();
        let kept: Vec<_> =
            worker.split('\'').filter(|quoted| quoted.starts_with("/page/") && quoted.contains('.')).collect();
        let files = kept.iter().copied().chain(["/page/unit.html"]);
        for text in files.map(|file| std::str::from_utf8(asset(file).unwrap().bytes).unwrap()) {
            for quoted in text.split(['"', '\'']) {
                let name = quoted.strip_prefix("./").map(|n| format!("/page/{n}")).unwrap_or(quoted.to_owned());
                let loaded = asset(&name).is_some() && name.starts_with("/page/") && name != "/page/unit-worker.js";
                assert!(!loaded || kept.contains(&name.as_str()), "{name}");
            }
        }
        for picture in ASSETS.iter().filter(|a| a.path.starts_with("/page/unit-") && a.content_type == PICTURE) {
            assert!(kept.contains(&picture.path), "{}", picture.path);
        }
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere_or_runs_inline() {
        for asset in ASSETS {
            let text = std::str::from_utf8(asset.bytes).unwrap();
            let outside = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!outside.contains("http://") && !outside.contains("https://"), "{}", asset.path);
        }
        let page = std::str::from_utf8(asset("/").unwrap().bytes).unwrap();
        assert!(!page.contains("<style") && !page.contains("style=") && !page.contains("onclick"));
        assert_eq!(
            page.matches("<script").count(),
            page.matches("<script type=\"module\" src=\"/page/").count(),
            "scripts come as files"
        );
    }
}
