// A function with Fn's kit for Node: answers 201 with the body of the request and a header, and logs a line.

const fdk = require('@fnproject/fdk');

let meeting = 0;
let all;
const met = new Promise((resolve) => { all = resolve; });

fdk.handle(async (body, context) => {
  console.log(`${body.length} bytes`);
  if (body.toString() === 'fail') throw new Error('on purpose');
  if (body.toString() === 'meet') {
    meeting += 1;
    if (meeting === Number(process.env.MEET)) all();
    await met;
  }
  const isHttp = context.getHeader('Fn-Intent') === 'httprequest';
  (isHttp ? context.httpGateway : context).setResponseHeader('X-Made-By', 'node');
  context.httpGateway.statusCode = 201;
  context.responseContentType = 'text/x-node';
  return fdk.rawResult(body);
}, {inputMode: 'buffer'});
