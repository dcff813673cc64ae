// CloudFront Function (viewer request) in front of the bucket: rewrites a page's address to the key of its object.

const PAGES = []; // Filled from infra/routes.py: [[pattern, object], ...].

function handler(event) {
  const request = event.request;
  const page = PAGES.find((row) => new RegExp(row[0]).test(request.uri));

  if (page) request.uri = page[1];
  else if (!request.uri.startsWith('/assets/')) return { statusCode: 404, statusDescription: 'Not Found' };
  return request;
}
