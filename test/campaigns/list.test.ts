import { beforeAll, expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { type Notification, PushApi } from "../support/push-api.ts";

const app = TestApp.forTests();
const api = new PushApi(app);
let drafts: Notification[];

beforeAll(async () => {
  drafts = [];
  for (let nth = 0; nth < 13; nth++) {
    // Two share a schedule, so that the id decides.
    const day = String(20 - Math.floor(nth / 2)).padStart(2, "0");
    const draft = await api.draft({ title: `n${nth}`, scheduled_at: `2099-12-${day}` });
    drafts.push(draft);
  }
  for (const nth of [5, 2, 9]) drafts[nth] = await api.setStatus(String(drafts[nth]?.uuid), 4);
});

function titles(found: Notification[]): number[] {
  return found.map(({ title }) => Number(title.slice(1)));
}

test("the list has the first ten by id, deleted ones too, and the total", async () => {
  expect(await api.list()).toEqual({ total: 13, items: drafts.slice(0, 10) });
  expect(await api.list("?unknown=1&events=x")).toMatchObject({ total: 13 });
});

test.each([
  ["?start=10", 13, [10, 11, 12]],
  ["?start=2&size=3", 13, [2, 3, 4]],
  ["?start=13", 13, []],
  ["?size=1000&start=11", 13, [11, 12]],
  ["?status=4", 3, [2, 5, 9]],
  ["?status=4&start=1&size=1", 3, [5]],
  ["?status=5", 0, []],
  ["?status=0&size=3", 10, [0, 1, 3]],
  ["?order_bys=-created_at&size=3", 13, [12, 11, 10]],
  ["?order_bys=created_at&size=2", 13, [0, 1]],
  ["?order_bys=scheduled_at&size=4", 13, [12, 10, 11, 8]],
  ["?order_bys=scheduled_at,-created_at&size=4", 13, [12, 11, 10, 9]],
  ["?order_bys=-scheduled_at,-created_at&size=4", 13, [1, 0, 3, 2]],
  ["?order_bys=modified_at&status=4", 3, [5, 2, 9]],
  ["?order_bys=-modified_at&status=4", 3, [9, 2, 5]],
  ["?order_bys=title,-id,,-,x,-created_at&size=2", 13, [12, 11]],
  ["?order_bys=&size=2", 13, [0, 1]],
])("%s", async (query, total, wanted) => {
  const page = await api.list(query);
  expect([page.total, titles(page.items)]).toEqual([total, wanted]);
});

test.each(["size=0", "size=1001", "size=-1", "size=x", "size=1.5", "start=-1", "start=x"])(
  "%s is refused by name",
  async (query) => {
    const named = expect.stringContaining(query.slice(0, query.indexOf("=")));
    expect(await api.refused("GET", `/notifications?${query}`)).toEqual([400, named]);
  },
);

test.each(["6", "-1", "x", "", "0x1", "1.0", "draft", "10"])("status=%s is none", async (value) => {
  const named = expect.stringContaining("status");
  expect(await api.refused("GET", `/notifications?status=${value}`)).toEqual([400, named]);
});
