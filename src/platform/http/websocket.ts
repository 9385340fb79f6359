import { type ServerWebSocket, type WebSocketHandler } from "bun";

// Far above the frame limits of routes, so that they can answer a frame over theirs with an error.
// Bun closes a connection with a larger frame.
const PAYLOAD_BYTES_MAX = 2 ** 20 + 64 * 1024;
const IDLE_TIMEOUT_S = 120;

/** Handles the events of one WebSocket. The connection holds it from its upgrade on. */
export interface WebSocketOwner {
  opened(ws: ServerWebSocket<WebSocketOwner>): void;
  received(message: string | Buffer): void;
  /** Called when the connection accepts bytes again after backpressure. */
  drained(): void;
  closed(): void;
}

/**
 * Handler for Bun's WebSockets: those of Elysia take three times the memory per connection. Bun
 * pings idle connections and closes dead ones.
 */
export const webSocketHandler: WebSocketHandler<WebSocketOwner> = {
  open: (ws) => ws.data.opened(ws),
  message: (ws, message) => ws.data.received(message),
  drain: (ws) => ws.data.drained(),
  close: (ws) => ws.data.closed(),
  maxPayloadLength: PAYLOAD_BYTES_MAX,
  idleTimeout: IDLE_TIMEOUT_S,
  perMessageDeflate: false,
};
