import { type Config } from "../platform/config/config.ts";
import { sessionTime } from "../log/session-time.ts";
import { type Started } from "./starts.ts";

export type StartAnswersDeps = {
  config: Pick<Config, "mobile" | "web">;
  /** Returns the largest batch, in bytes, that the project accepts. */
  beaconBytesMax: (projectId: number) => number;
  /** Lists the most used image names of a project. */
  imageNames: (projectId: number) => Promise<string[]>;
};

/** Says what SDKs are told of a session that was started. */
export class StartAnswers {
  readonly #deps: StartAnswersDeps;

  constructor(deps: StartAnswersDeps) {
    this.#deps = deps;
  }

  readonly mobile = async (started: Started) => ({
    ...this.#common(started),
    imagesHashList: await this.#deps.imageNames(started.project.id),
    ...this.#deps.config.mobile,
  });

  readonly web = (started: Started) => {
    const { request, project, agent, place, sessionId, delay } = started;
    const { web } = this.#deps.config;
    return {
      ...this.#common(started),
      delay,
      startTimestamp: sessionTime(sessionId),
      timestamp: 0,
      userOS: agent.os,
      userDevice: agent.device,
      userBrowser: agent.browser,
      userCountry: place.country,
      userState: place.state,
      userCity: place.city,
      compressionThreshold: web.compressionThreshold,
      canvasEnabled: project.recordCanvas ?? web.recordCanvas,
      canvasQuality: project.canvasQuality ?? web.canvasQuality,
      canvasFPS: project.canvasFps ?? web.canvasFps,
      protocolVersion: web.protocolVersion,
      assistOnly: request.assistOnly ?? false,
      // Earlier trackers ask for flags and usability tests unless they are told not to.
      features: { "feature-flags": false, "usability-test": false },
    };
  };

  readonly analytics = ({ token }: Started) => ({ token });

  #common({ token, sessionId, userUUID, project }: Started) {
    return {
      token,
      sessionID: String(sessionId),
      userUUID,
      beaconSizeLimit: this.#deps.beaconBytesMax(project.id),
      projectID: String(project.id),
      framesSupport: true,
    };
  }
}
