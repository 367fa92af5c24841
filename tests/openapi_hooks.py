"""What schemathesis does not know by itself: an SDP offer is sent as it is."""
import schemathesis


@schemathesis.serializer("application/sdp")
def sdp(context, value):
    return value if isinstance(value, bytes) else str(value).encode()
