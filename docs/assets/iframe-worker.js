/* The search of a page that is read from a disk: browsers start no Worker from file:, so its script runs in
   a hidden frame that takes and gives messages as a Worker does. Elsewhere nothing is changed. */
(function () {
  "use strict";
  if (location.protocol !== "file:") return;
  class FrameWorker extends EventTarget {
    constructor(url) {
      super();
      const waiting = [];
      this.send = (data) => waiting.push(data);
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.addEventListener("load", () => {
        const inside = frame.contentWindow;
        inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
        inside.importScripts = (...names) =>
          names.reduce((before, name) => before.then(() => load(inside, name)), Promise.resolve());
        load(inside, url).then(() => {
          this.send = (data) => inside.dispatchEvent(new inside.MessageEvent("message", { data }));
          waiting.forEach(this.send);
        });
      });
      frame.srcdoc = "<!doctype html><title>search</title>";
      (document.body || document.documentElement).appendChild(frame);
    }
    postMessage(data) {
      this.send(data);
    }
    terminate() {}
  }
  function load(inside, url) {
    return new Promise((done, failed) => {
      const script = inside.document.createElement("script");
      script.src = String(url);
      script.onload = done;
      script.onerror = failed;
      inside.document.head.appendChild(script);
    });
  }
  window.Worker = FrameWorker;
})();
