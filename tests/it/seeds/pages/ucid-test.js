const WebSocket = require('ws');

const ws = new WebSocket('wss://your-domain.com/ws');

ws.on('open', () => {
  console.log('✅ Connected');
  
  // Send start
  ws.send(JSON.stringify({
    event: 'start',
    ucid: 'TEST-' + Date.now(),
    type: 'text'
  }));
  
  // Wait 5 seconds, then stop
  setTimeout(() => {
    ws.send(JSON.stringify({
      event: 'stop',
      ucid: 'TEST-' + Date.now(),
      type: 'text'
    }));
  }, 5000);
});

ws.on('message', (data) => {
  console.log('← Received:', data.toString().substring(0, 100));
});

ws.on('close', () => {
  console.log('✅ Connection closed');
});
