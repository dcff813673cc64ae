// CloudFront Function (viewer request) in front of the WebSocket API, which takes no path after its stage:
// /ocpp/<identity> becomes /ocpp?cp=<identity>, where /ocpp is then the stage. Some stations add a version segment.

// Printable ASCII except "/". The identity stays percent-encoded: 48 characters of up to four encoded bytes each.
const ADDRESS = /^\/ocpp\/+(?:(?:1\.6|2\.0\.1)\/)?([!-.0-~]+)\/?$/;
const LONGEST = 576;
const BROKEN_ESCAPE = /%(?![0-9A-Fa-f]{2})/;

function handler(event) {
  const request = event.request;
  const match = ADDRESS.exec(request.uri);

  if (!match) return { statusCode: 404, statusDescription: 'Not Found' };
  if (match[1].length > LONGEST) return { statusCode: 400, statusDescription: 'Bad Request' };
  if (BROKEN_ESCAPE.test(match[1])) return { statusCode: 400, statusDescription: 'Bad Request' };
  if (!request.headers['sec-websocket-key']) return { statusCode: 426, statusDescription: 'Upgrade Required' };

  request.uri = '/ocpp';
  // The whole query is replaced, so that a station cannot set cp itself. API Gateway decodes it once, so characters
  // that are literal in a path ("+", "&") must be encoded in the query.
  request.querystring = { cp: { value: match[1].replace(/[^\w.~%-]/g, encodeURIComponent) } };
  // The whole header is replaced, so that a station cannot set its address itself.
  request.headers['x-viewer-address'] = { value: event.viewer.ip };
  // API Gateway mishandles the window bits of permessage-deflate, so compression is not offered to it.
  delete request.headers['sec-websocket-extensions'];
  return request;
}
