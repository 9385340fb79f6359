import { type ServerWebSocket, type WebSocketHandler } from "bun";

// So large that a frame over its user's own limit can still be answered; what is larger is cut off.
const PAYLOAD_BYTES_MAX = 2 ** 20 + 64 * 1024;
const IDLE_TIMEOUT_S = 120;

/** What lies behind a WebSocket: it travels with the connection from its upgrade on. */
export interface WebSocketOwner {
  opened(ws: ServerWebSocket<WebSocketOwner>): void;
  received(message: string | Buffer): void;
  /** The connection takes bytes again. */
  drained(): void;
  closed(): void;
}

/** Bun's own handler: Elysia's costs three times the memory of a connection. Bun pings quiet connections and ends dead ones. */
export const webSocketHandler: WebSocketHandler<WebSocketOwner> = {
  open: (ws) => ws.data.opened(ws),
  message: (ws, message) => ws.data.received(message),
  drain: (ws) => ws.data.drained(),
  close: (ws) => ws.data.closed(),
  maxPayloadLength: PAYLOAD_BYTES_MAX,
  idleTimeout: IDLE_TIMEOUT_S,
  perMessageDeflate: false,
};
