import {
  type Layout,
  type Message,
  type MessageTypes,
  decodeBody,
  decodeFields,
  plain,
} from "./decoding.ts";
import { WebFrameCursor } from "./web-frames.ts";

const b = "boolean";
const i = "int";
const s = "text";
const u = "uint";

const CALL: Layout = { type: s, method: s, url: s, request: s, response: s, status: u, ts: u };
const LOADED: Layout = { ts: u, duration: u, ttfb: u, header: u, encoded: u, decoded: u };
const RESOURCE: Layout = { ...LOADED, url: s, initiator: s, transferred: u, cached: b };
const PHASES: Layout = { queueing: u, dns: u, connect: u, ssl: u, download: u, total: u };

/**
 * Messages of the OpenReplay web wire format: name and layout. Types of one name are those of
 * trackers of different ages. Types that are missing here have no meaning now.
 */
const MESSAGE_TYPES: MessageTypes = new Map<number, [name: string, layout: Layout]>([
  [0, ["Timestamp", { ts: u }]],
  [4, ["SetPageLocation", { url: s, referrer: s, navigationStart: u }]],
  [5, ["SetViewportSize", { width: u, height: u }]],
  [6, ["SetViewportScroll", { x: i, y: i }]],
  [7, ["CreateDocument", {}]],
  [8, ["CreateElementNode", { id: u, parent: u, index: u, tag: s, svg: b }]],
  [9, ["CreateTextNode", { id: u, parent: u, index: u }]],
  [10, ["MoveNode", { id: u, parent: u, index: u }]],
  [11, ["RemoveNode", { id: u }]],
  [12, ["SetNodeAttribute", { id: u, name: s, value: s }]],
  [13, ["RemoveNodeAttribute", { id: u, name: s }]],
  [14, ["SetNodeData", { id: u, data: s }]],
  [15, ["SetCSSData", { id: u, data: s }]],
  [16, ["SetNodeScroll", { id: u, x: i, y: i }]],
  [17, ["SetInputTarget", { id: u, label: s }]],
  [18, ["SetInputValue", { id: u, value: s, mask: i }]],
  [19, ["SetInputChecked", { id: u, checked: b }]],
  [20, ["MouseMove", { x: u, y: u }]],
  [21, ["NetworkRequest", { ...CALL, duration: u }]],
  [22, ["ConsoleLog", { level: s, value: s }]],
  [
    23,
    [
      "PageLoadTiming",
      {
        requestStart: u,
        responseStart: u,
        responseEnd: u,
        dclStart: u,
        dclEnd: u,
        loadStart: u,
        loadEnd: u,
        firstPaint: u,
        firstContentfulPaint: u,
      },
    ],
  ],
  [24, ["PageRenderTiming", { speedIndex: u, visuallyComplete: u, timeToInteractive: u }]],
  [27, ["CustomEvent", { name: s, payload: s }]],
  [28, ["UserID", { id: s }]],
  [29, ["UserAnonymousID", { id: s }]],
  [30, ["Metadata", { key: s, value: s }]],
  [34, ["StringDictGlobal", { key: u, value: s }]],
  [35, ["SetNodeAttributeDictGlobal", { id: u, nameKey: u, valueKey: u }]],
  [36, ["NodeAnimationResult", { id: u, styles: s }]],
  [40, ["Profiler", { name: s, duration: u, args: s, result: s }]],
  [41, ["OTable", { key: s, value: s }]],
  [42, ["StateAction", { type: s }]],
  [43, ["StringDict", { key: s, value: s }]],
  [44, ["Redux", { action: s, state: s, duration: u }]],
  [45, ["Vuex", { mutation: s, state: s }]],
  [46, ["MobX", { type: s, payload: s }]],
  [47, ["NgRx", { action: s, state: s, duration: u }]],
  [48, ["GraphQL", { kind: s, name: s, variables: s, response: s, duration: i }]],
  [49, ["PerformanceTrack", { frames: i, ticks: i, totalHeap: u, usedHeap: u }]],
  [50, ["StringDict", { key: u, value: s }]],
  [51, ["SetNodeAttributeDict", { id: u, nameKey: u, valueKey: u }]],
  [52, ["SetNodeAttributeDict", { id: u, nameKey: s, valueKey: s }]],
  [53, ["ResourceTiming", { ...LOADED, url: s, initiator: s }]],
  [54, ["ConnectionInformation", { downlink: u, type: s }]],
  [55, ["SetPageVisibility", { hidden: b }]],
  [57, ["LoadFontFace", { parent: u, family: s, source: s, descriptors: s }]],
  [58, ["SetNodeFocus", { id: i }]],
  [60, ["SetNodeAttributeURLBased", { id: u, name: s, value: s, baseURL: s }]],
  [61, ["SetCSSDataURLBased", { id: u, data: s, baseURL: s }]],
  [63, ["TechnicalInfo", { type: s, value: s }]],
  [64, ["CustomIssue", { name: s, payload: s }]],
  [65, ["SetNodeSlot", { id: u, slot: u }]],
  [68, ["MouseClick", { id: u, hesitation: u, label: s, selector: s, nx: u, ny: u }]],
  [69, ["MouseClick", { id: u, hesitation: u, label: s, selector: s }]],
  [70, ["CreateIFrameDocument", { host: u, id: u }]],
  [71, ["AdoptedSSReplaceURLBased", { sheet: u, text: s, baseURL: s }]],
  [72, ["AdoptedSSReplace", { sheet: u, text: s }]],
  [73, ["AdoptedSSInsertRuleURLBased", { sheet: u, rule: s, index: u, baseURL: s }]],
  [74, ["AdoptedSSInsertRule", { sheet: u, rule: s, index: u }]],
  [75, ["AdoptedSSDeleteRule", { sheet: u, index: u }]],
  [76, ["AdoptedSSAddOwner", { sheet: u, id: u }]],
  [77, ["AdoptedSSRemoveOwner", { sheet: u, id: u }]],
  [78, ["JSException", { name: s, message: s, payload: s, metadata: s }]],
  [79, ["Zustand", { mutation: s, state: s }]],
  [83, ["NetworkRequest", { ...CALL, duration: u, transferred: u }]],
  [84, ["WSChannel", { type: s, channel: s, data: s, ts: u, direction: s, messageType: s }]],
  [85, ["ResourceTiming", { ...RESOURCE, ...PHASES, stalled: u }]],
  [87, ["Incident", { label: s, start: i, end: i }]],
  [
    89,
    [
      "LongAnimationTask",
      { name: s, duration: i, blocking: i, firstUIEvent: i, start: i, scripts: s },
    ],
  ],
  [112, ["InputChange", { id: u, value: s, masked: b, label: s, hesitation: i, duration: i }]],
  [113, ["SelectionChange", { start: u, end: u, text: s }]],
  [114, ["MouseThrashing", { ts: u }]],
  [115, ["UnbindNodes", { percent: u }]],
  [116, ["ResourceTiming", RESOURCE]],
  [117, ["TabChange", { tabId: s }]],
  [118, ["TabData", { tabId: s }]],
  [119, ["CanvasNode", { nodeId: s, ts: u }]],
  [120, ["TagTrigger", { tagId: i }]],
  [121, ["Redux", { action: s, state: s, duration: u, actionTime: u }]],
  [122, ["SetPageLocation", { url: s, referrer: s, navigationStart: u, title: s }]],
  [123, ["GraphQL", { kind: s, name: s, variables: s, response: s, duration: u }]],
  [124, ["WebVitals", { name: s, value: s }]],
  [
    125,
    [
      "IssueEvent",
      { messageId: u, ts: u, type: s, contextString: s, context: s, payload: s, url: s },
    ],
  ],
]);

const HEADER: Layout = { version: u, pageNo: u, firstIndex: u, timestamp: i, location: s };

/** Decodes the header of a web batch. Throws FrameError. */
export function decodeWebHeader(bytes: Uint8Array): Message["fields"] {
  const { bodyStart, bodyEnd } = new WebFrameCursor(bytes);
  return decodeFields(HEADER, bytes.subarray(bodyStart, bodyEnd));
}

/**
 * Decodes the messages of a web batch, with one in memory at a time. The time of a message is that
 * of the last Timestamp message. Throws FrameError for the batches for which `walkWebFrames` does,
 * and only for those.
 */
export function* decodeWebMessages(bytes: Uint8Array): Generator<Message> {
  const frame = new WebFrameCursor(bytes);
  let index = (BigInt(frame.pageNo) << 32n) + BigInt(frame.firstIndex);
  while (frame.next()) {
    const { type, timestamp, body } = frame;
    yield { index: plain(++index), type, timestamp, ...decodeBody(MESSAGE_TYPES, type, body) };
  }
}
