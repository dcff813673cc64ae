// CloudFront Function (viewer request) in front of the HTTP API: passes the viewer's address on.

function handler(event) {
  const request = event.request;

  // The whole header is replaced, so that a viewer cannot set its address itself.
  request.headers['x-viewer-address'] = { value: event.viewer.ip };
  return request;
}
