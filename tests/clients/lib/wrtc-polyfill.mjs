// The names of node-datachannel/polyfill, from a WebRTC that is complete as npm installs it.

import wrtc from "@roamhq/wrtc";

export const { RTCPeerConnection, RTCSessionDescription, RTCIceCandidate } = wrtc;
