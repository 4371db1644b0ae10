// The worker with one more page: which of its lines ran.
import worker from "../src/worker.ts";

export { Bucket, Shared } from "../src/worker.ts";

export default {
  async fetch(request: Request, env: never, ctx: never): Promise<Response> {
    if (new URL(request.url).pathname === "/__coverage__") {
      return Response.json((globalThis as { __coverage__?: unknown }).__coverage__ ?? {});
    }
    return worker.fetch(request as never, env, ctx);
  },
};
