// An OpenAI-compatible model whose streamed answers tell which question they answer and that this model gave them.

import { createHash, randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import { setImmediate as nextTurn } from "node:timers/promises";

const PIECES = 6;

export class Model {
  name = "model";
  questions = [];
  #secret;
  #server = createServer((request, response) => this.#serve(request, response));

  static async start(scene) {
    const model = scene.add(new Model(randomUUID()));
    await model.listen();
    return model;
  }

  async listen() {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    this.url = `http://127.0.0.1:${this.#server.address().port}`;
  }

  /** Whoever knows `secret` knows the answers. */
  constructor(secret) {
    this.#secret = secret;
  }

  /** What this model, and no other, says to `question`. */
  answerTo(question) {
    const token = createHash("sha256").update(this.#secret).update(question).digest("hex");
    return `The answer to "${question}" is ${token}.`;
  }

  evidence() {
    return this.questions.map((question) => `asked: ${question}`);
  }

  async stop() {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, "close");
  }

  async #serve(request, response) {
    if (request.url === "/v1/models") return response.end(JSON.stringify({ data: [{ id: "echo" }] }));
    if (request.url !== "/v1/chat/completions") return response.writeHead(404).end();
    const { messages } = JSON.parse(Buffer.concat(await request.toArray()));
    const question = messages.findLast((message) => message.role === "user").content;
    this.questions.push(question);
    response.writeHead(200, { "content-type": "text/event-stream" });
    for (const piece of inPieces(this.answerTo(question))) {
      response.write(chunk({ content: piece }));
      await nextTurn(); // so that each piece leaves in a packet of its own
    }
    response.end(`${chunk({}, "stop")}data: [DONE]\n\n`);
  }
}

function inPieces(text) {
  return text.match(new RegExp(`.{1,${Math.ceil(text.length / PIECES)}}`, "g"));
}

function chunk(delta, finishReason = null) {
  const choice = { index: 0, delta, finish_reason: finishReason };
  return `data: ${JSON.stringify({ id: "1", object: "chat.completion.chunk", model: "echo", choices: [choice] })}\n\n`;
}
