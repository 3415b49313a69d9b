use super::*;
use crate::{FeatureId, Features, RopeSet, TowerInput};
use std::collections::HashMap;

fn tokens(tokens: impl IntoIterator<Item = u32>) -> Vec<Input> {
    tokens.into_iter().map(Input::Token).collect()
}

fn counts(table: &PageTable) -> [usize; 3] {
    [table.used(), table.cached(), table.free()]
}

/// Computes, publishes and releases a text.
fn cache(table: &mut PageTable, root: PrefixNode, inputs: &[Input]) {
    let pages = table.allocate(inputs.len().div_ceil(PAGE)).unwrap();
    let mut node = root;
    for (page, inputs) in pages.iter().zip(inputs.chunks(PAGE)) {
        node = table.publish(node, *page, inputs);
    }
    table.release(pages);
}

#[test]
fn prefixes_are_shared_to_the_input() {
    let mut table = PageTable::with_budget(8);
    let root = table.root(&CacheRoot::default());
    let text = tokens(0..40);
    cache(&mut table, root, &text);
    assert_eq!(counts(&table), [0, 3, 5]);

    for (text, most, expected) in [
        (tokens(0..40), 40, 40usize),
        (tokens(0..40), 39, 39),
        (tokens(0..100), 100, 40),
        (tokens(0..16), 15, 15),
        (tokens((0..20).chain(90..99)), 29, 20),
        (tokens((0..5).chain(90..99)), 14, 5),
        (tokens(1..9), 8, 0),
    ] {
        let prefix = table.lookup(root, &text, most);
        assert_eq!((prefix.tokens, prefix.pages.len()), (expected, expected.div_ceil(PAGE)));
        assert_eq!(table.used(), prefix.pages.len());
        table.release(prefix.pages);
    }
    let long = table.root(&CacheRoot { rope: RopeSet::Long, salt: None });
    let salted = table.root(&CacheRoot { salt: Some("a".into()), ..CacheRoot::default() });
    assert_eq!([long, salted].map(|root| table.lookup(root, &text, 40).tokens), [0, 0]);
    table.clear_cached();
    assert_eq!((table.lookup(root, &text, 40).tokens, counts(&table)), (0, [0, 0, 8]));
}

#[test]
fn shared_and_published_positions_are_copied_before_they_are_written() {
    let mut table = PageTable::with_budget(3);
    let root = table.root(&CacheRoot::default());
    let page = table.allocate(1).unwrap()[0];
    table.publish(root, page, &tokens(0..5));
    assert_eq!(table.writable(page, 5), Some(Write::InPlace));
    let shared = table.lookup(root, &tokens(0..9), 8);
    assert_eq!((&shared.pages[..], shared.tokens), (&[page][..], 5));
    let Some(Write::Copy { from, to }) = table.writable(page, 5) else { panic!("the page is shared") };
    assert!(from == page && to != page);
    table.release([from]);
    assert_eq!(table.writable(page, 5), Some(Write::InPlace));
    // longer content replaces shorter content of the page
    table.publish(root, page, &tokens(0..12));
    table.release([page, to]);
    assert_eq!(counts(&table), [0, 1, 2]);
    let again = table.lookup(root, &tokens(0..7), 7);
    assert_eq!(again.tokens, 7);
    assert!(matches!(table.writable(page, 7), Some(Write::Copy { .. })));
    // without a page for the copy, the content is forgotten
    table.allocate(1).unwrap();
    assert_eq!(table.writable(page, 7), Some(Write::InPlace));
    assert_eq!(table.lookup(root, &tokens(0..7), 7).tokens, 0);
}

#[test]
fn the_end_of_the_oldest_text_is_evicted_first() {
    let mut table = PageTable::with_budget(6);
    let root = table.root(&CacheRoot::default());
    cache(&mut table, root, &tokens(0..48));
    cache(&mut table, root, &tokens(100..148));
    let kept = table.allocate(1).unwrap();
    let found = |table: &mut PageTable, text: Vec<Input>| {
        let prefix = table.lookup(root, &text, usize::MAX);
        table.release(prefix.pages);
        prefix.tokens
    };
    assert_eq!(found(&mut table, tokens(0..48)), 32);
    // the first text is now the one used last
    let more = table.allocate(2).unwrap();
    assert_eq!(found(&mut table, tokens(100..148)), 16);
    assert_eq!(found(&mut table, tokens(0..48)), 32);
    assert!(table.allocate(4).is_none());
    assert_eq!(counts(&table), [3, 3, 0]);
    table.release(kept.into_iter().chain(more).chain([Batch::NO_PAGE]));
    assert_eq!(counts(&table), [0, 3, 3]);
}

#[test]
fn memory_grows_only_where_all_free_pages_are_cached() {
    let mut table = PageTable::with_budget(5);
    let root = table.root(&CacheRoot::default());
    let pages = table.allocate(3).unwrap();
    assert_eq!(pages, [0, 1, 2]);
    table.publish(root, 1, &tokens(0..16));
    table.release(pages);
    // pages 0 and 2 hold nothing; page 1 is kept, and the memory of page 3 is taken before that
    let mut pages = table.allocate(3).unwrap();
    pages.sort_unstable();
    assert_eq!(pages, [0, 2, 3]);
    assert_eq!((table.allocate(1).unwrap(), counts(&table)), (vec![4], [4, 1, 0]));
    assert_eq!((table.allocate(1).unwrap(), counts(&table)), (vec![1], [5, 0, 0]));
    assert_eq!(table.lookup(root, &tokens(0..16), 16).tokens, 0);
}

#[test]
fn a_table_shrinks_to_the_last_page_in_use() {
    let mut table = PageTable::with_budget(10);
    let root = table.root(&CacheRoot::default());
    table.allocate(2).unwrap();
    cache(&mut table, root, &tokens(0..48));
    assert_eq!(counts(&table), [2, 3, 5]);
    table.shrink(4);
    assert_eq!((table.budget(), counts(&table)), (4, [2, 2, 0]));
    assert_eq!(table.lookup(root, &tokens(0..48), 48).tokens, 32);
    table.shrink(20);
    assert_eq!(table.budget(), 4);
    // the first page of the text goes, and with it the pages after it
    let mut table = PageTable::with_budget(10);
    let root = table.root(&CacheRoot::default());
    let text = table.allocate(3).unwrap();
    let node = table.publish(root, text[2], &tokens(0..16));
    table.publish(node, text[0], &tokens(16..32));
    table.release(text);
    table.shrink(2);
    assert_eq!((table.lookup(root, &tokens(0..32), 32).tokens, counts(&table)), (0, [0, 0, 2]));
    table.shrink(0);
    assert_eq!((table.budget(), table.allocate(1)), (0, None));
}

#[test]
fn equal_content_is_published_once() {
    let mut table = PageTable::with_budget(4);
    let root = table.root(&CacheRoot::default());
    let pages = table.allocate(2).unwrap();
    let node = table.publish(root, pages[0], &tokens(0..16));
    assert_ne!(node, root);
    assert_eq!(table.publish(root, pages[1], &tokens(0..16)), node);
    assert_eq!(table.publish(root, pages[1], &tokens(0..9)), root);
    table.release(pages);
    assert_eq!(counts(&table), [0, 1, 3]);
}

#[test]
fn images_are_compared_by_their_values() {
    let features = |value: f32| {
        let id = FeatureId::of(&TowerInput { values: &[value], grid: (1, 1) });
        Arc::new(Features::new(id, 1, vec![value; 20]))
    };
    let text = |value| [Input::Token(1)].into_iter().chain(features(value).inputs()).collect::<Vec<_>>();
    let mut table = PageTable::with_budget(4);
    let root = table.root(&CacheRoot::default());
    cache(&mut table, root, &text(0.5));
    assert_eq!(table.lookup(root, &text(0.5), 40).tokens, 21);
    assert_eq!(table.lookup(root, &text(0.25), 40).tokens, 1);
}

#[test]
fn sampled_tokens_are_not_looked_up() {
    let mut table = PageTable::with_budget(4);
    let root = table.root(&CacheRoot::default());
    cache(&mut table, root, &tokens(0..20));
    assert_eq!(table.lookup(root, &tokens((0..7).chain([Batch::SAMPLED])), 8).tokens, 7);
}

#[test]
fn roots_without_content_do_not_pile_up() {
    let mut table = PageTable::with_budget(2);
    let kept = table.root(&CacheRoot::default());
    cache(&mut table, kept, &tokens(0..20));
    for i in 0..if cfg!(miri) { 30 } else { 1000 } {
        table.root(&CacheRoot { salt: Some(i.to_string().into()), ..CacheRoot::default() });
        assert!(table.tree.len() <= 2 * 2 + 3);
    }
    let again = table.root(&CacheRoot::default());
    assert_eq!(table.lookup(again, &tokens(0..20), 20).tokens, 20);
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

/// A root and the inputs from the beginning of a text: what the keys of a position depend on.
type Text = (usize, Vec<u32>);

/// A sequence as the scheduler has it.
struct Holder {
    text: Text,
    /// Number of inputs whose keys are in the pages.
    computed: usize,
    pages: Vec<PageId>,
    node: PrefixNode,
    /// Full pages that are published.
    published: usize,
}

/// What the table should say, in plain lists.
#[derive(Default)]
struct Naive {
    /// What each position of a page holds.
    memory: HashMap<PageId, Vec<Option<Text>>>,
    /// Text from its beginning to the end of a published page.
    published: HashMap<PageId, Text>,
    /// Unreferenced published pages; the one that is evicted next comes first.
    released: Vec<PageId>,
    made: usize,
}

impl Naive {
    fn forget(&mut self, page: PageId) {
        let Some((root, text)) = self.published.remove(&page) else { return };
        self.released.retain(|other| *other != page);
        if text.len() % PAGE == 0 {
            let goes_on = |(r, t): &Text| *r == root && t.len() > text.len() && t.starts_with(&text);
            let pages: Vec<PageId> = self.published.iter().filter(|(_, t)| goes_on(t)).map(|(page, _)| *page).collect();
            pages.iter().for_each(|page| self.forget(*page));
        }
    }

    /// A page was allocated.
    fn take(&mut self, page: PageId, freed: usize, budget: usize) {
        if freed > 0 {
            assert!((page as usize) < self.made);
        } else if self.made < budget {
            assert_eq!(page as usize, self.made);
            self.made += 1;
        } else {
            let oldest = self.released[0];
            self.forget(oldest);
        }
        assert!(!self.published.contains_key(&page));
        self.memory.insert(page, vec![None; PAGE]);
    }

    fn longest(&self, root: usize, inputs: &[u32]) -> usize {
        let mut full = 0;
        loop {
            let same = |(r, text): &Text| {
                let here =
                    *r == root && text.len() > full && text.len() <= full + PAGE && text[..full] == inputs[..full];
                if here { text[full..].iter().zip(&inputs[full..]).take_while(|(a, b)| a == b).count() } else { 0 }
            };
            match self.published.values().map(same).max().unwrap_or(0) {
                PAGE => full += PAGE,
                part => return full + part,
            }
        }
    }
}

#[test]
fn random_operations_agree_with_plain_lists() {
    let steps = if cfg!(miri) { 12 } else { 4000 };
    for (seed, budget) in [(1, 1), (2, 3), (3, 8), (4, 20), (5, 60)] {
        random_operations(&mut Random(seed), budget, steps);
    }
}

fn random_operations(random: &mut Random, budget: usize, steps: usize) {
    let roots = [
        CacheRoot::default(),
        CacheRoot { rope: RopeSet::Long, salt: None },
        CacheRoot { salt: Some("tenant".into()), ..CacheRoot::default() },
    ];
    let mut table = PageTable::with_budget(budget);
    let mut naive = Naive::default();
    let mut holders: Vec<Holder> = Vec::new();
    for _ in 0..steps {
        match random.below(12) {
            0..3 => {
                // few texts, so that many begin alike
                let root = random.below(2 * roots.len()) % roots.len();
                let length = 1 + random.below(70);
                let text: Vec<u32> = (0..length).map(|i| (i * (random.below(60) / 59 + 1)) as u32 % 7).collect();
                let inputs = tokens(text.iter().copied());
                let most = text.len() - random.below(2);
                let node = table.root(&roots[root]);
                let prefix = table.lookup(node, &inputs, most);
                assert_eq!(prefix.tokens, naive.longest(root, &text[..most]));
                assert_eq!(prefix.pages.len(), prefix.tokens.div_ceil(PAGE));
                for at in 0..prefix.tokens {
                    let held = &naive.memory[&prefix.pages[at / PAGE]][at % PAGE];
                    assert_eq!(held.as_ref(), Some(&(root, text[..=at].to_vec())));
                }
                naive.released.retain(|page| !prefix.pages.contains(page));
                let (computed, published) = (prefix.tokens, prefix.tokens / PAGE);
                holders.push(Holder {
                    text: (root, text),
                    computed,
                    pages: prefix.pages,
                    node: prefix.node,
                    published,
                });
            }
            3..8 if !holders.is_empty() => {
                let holder = random.below(holders.len());
                write(&mut table, &mut naive, &mut holders[holder], 1 + random.below(20), random.below(3) == 0);
            }
            8..10 if !holders.is_empty() => {
                let holder = random.below(holders.len());
                publish(&mut table, &mut naive, &mut holders[holder]);
            }
            10 if !holders.is_empty() => {
                let holder = holders.swap_remove(random.below(holders.len()));
                release(&mut table, &mut naive, &holders, holder.pages);
            }
            11 if random.below(200) == 0 => {
                let used = holders.iter().flat_map(|holder| &holder.pages).max().map_or(0, |page| *page as usize + 1);
                let budget = random.below(table.budget() + 1).max(1);
                table.shrink(budget);
                let kept = budget.max(used);
                assert_eq!(table.budget(), kept);
                (kept..naive.made).for_each(|page| naive.forget(page as PageId));
                naive.made = naive.made.min(kept);
            }
            11 if random.below(40) == 0 => {
                table.clear_cached();
                naive.published.clear();
                naive.released.clear();
            }
            _ => {}
        }
        check(&table, &naive, &holders);
    }
    for holder in std::mem::take(&mut holders) {
        release(&mut table, &mut naive, &holders, holder.pages);
    }
    assert_eq!(table.used(), 0);
}

/// Computes `rows` inputs more; those of a new text where `strays`.
fn write(table: &mut PageTable, naive: &mut Naive, holder: &mut Holder, rows: usize, strays: bool) {
    if strays && holder.computed < holder.text.1.len() {
        holder.text.1[holder.computed] = 8;
    }
    let end = holder.text.1.len().min(holder.computed + rows);
    for at in holder.computed..end {
        let (budget, freed) = (table.budget(), table.freed.len());
        if at / PAGE == holder.pages.len() {
            let Some(page) = table.allocate(1) else { return assert_eq!(table.used(), budget) };
            naive.take(page[0], freed, budget);
            holder.pages.extend(page);
        } else {
            let page = holder.pages[at / PAGE];
            match table.writable(page, at % PAGE) {
                Some(Write::InPlace) => {
                    if naive.published.get(&page).is_some_and(|(_, text)| text.len() > at) {
                        assert_eq!(table.used(), budget);
                        naive.forget(page);
                    }
                }
                Some(Write::Copy { from, to }) => {
                    assert_eq!(from, page);
                    naive.take(to, freed, budget);
                    naive.memory.insert(to, naive.memory[&from].clone());
                    holder.pages[at / PAGE] = to;
                    table.release([from]);
                    if table.pages[from as usize].references == 0 && naive.published.contains_key(&from) {
                        naive.released.push(from);
                    }
                }
                None => return assert_eq!(table.used(), budget),
            }
        }
        let (root, text) = &holder.text;
        naive.memory.get_mut(&holder.pages[at / PAGE]).unwrap()[at % PAGE] = Some((*root, text[..=at].to_vec()));
        holder.computed = at + 1;
    }
}

fn publish(table: &mut PageTable, naive: &mut Naive, holder: &mut Holder) {
    let (root, text) = &holder.text;
    while holder.computed > holder.published * PAGE {
        let (start, end) = (holder.published * PAGE, holder.computed.min((holder.published + 1) * PAGE));
        let page = holder.pages[holder.published];
        let alive = table.tree.contains(holder.node);
        let node = table.publish(holder.node, page, &tokens(text[start..end].iter().copied()));
        let goes_on = |(r, t): &Text| r == root && t.len() <= start + PAGE && t.starts_with(&text[..end]);
        if alive && !naive.published.values().any(goes_on) {
            naive.published.insert(page, (*root, text[..end].to_vec()));
        }
        if end - start < PAGE {
            break;
        }
        assert!(!alive || node != holder.node);
        holder.node = node;
        holder.published += 1;
    }
}

fn release(table: &mut PageTable, naive: &mut Naive, others: &[Holder], pages: Vec<PageId>) {
    let unused = |page: &&PageId| !others.iter().any(|other| other.pages.contains(page));
    for page in pages.iter().rev().filter(unused).filter(|page| naive.published.contains_key(page)) {
        naive.released.push(*page);
    }
    table.release(pages);
}

fn check(table: &PageTable, naive: &Naive, holders: &[Holder]) {
    let mut references: HashMap<PageId, u32> = HashMap::new();
    holders.iter().flat_map(|holder| &holder.pages).for_each(|page| *references.entry(*page).or_default() += 1);
    for (page, entry) in table.pages.iter().enumerate() {
        assert_eq!(entry.references, references.get(&(page as PageId)).copied().unwrap_or(0));
        assert_eq!(entry.content.is_some(), naive.published.contains_key(&(page as PageId)));
    }
    assert_eq!(table.used(), references.len());
    assert_eq!(table.cached(), naive.released.len());
    assert!(table.cached.values().eq(&naive.released));
    assert_eq!(table.used() + table.cached() + table.free(), table.budget());
    assert_eq!(table.free(), table.freed.len() + table.budget() - table.pages.len());
    assert!(table.freed.iter().all(|page| !references.contains_key(page)));
    for holder in holders {
        let (root, text) = &holder.text;
        for at in 0..holder.computed {
            let held = &naive.memory[&holder.pages[at / PAGE]][at % PAGE];
            assert_eq!(held.as_ref(), Some(&(*root, text[..=at].to_vec())), "position {at} was overwritten");
        }
    }
}
