"""GStreamer's RTSP server relaying cameras: what scripts/bench/rtsp measures against. relay.py PORT URL..."""
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer

Gst.init(None)
port, *urls = sys.argv[1:]
server = GstRtspServer.RTSPServer()
server.set_service(port)
server.set_address("127.0.0.1")
for i, url in enumerate(urls):
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(f"( rtspsrc location={url} user-id=admin user-pw=test protocols=tcp latency=0 ! rtph264depay ! "
                       "rtph264pay name=pay0 pt=96 config-interval=-1 )")
    # One session at the camera for all clients.
    factory.set_shared(True)
    factory.set_latency(0)
    server.get_mount_points().add_factory(f"/cam-{i:04}", factory)
if server.attach(None) == 0:
    sys.exit("cannot bind")
GLib.MainLoop().run()
