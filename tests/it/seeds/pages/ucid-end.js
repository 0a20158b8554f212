// Add this to your telephony vendor integration:
function onCallEnd(callId) {
  websocket.send(JSON.stringify({
    event: 'stop',
    ucid: callId,
    type: 'text'
  }));
}
