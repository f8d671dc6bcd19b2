import { createMockStore } from '../helpers/mock-store.ts';
import { storeContract } from './store-contract.ts';

storeContract('mock', (root) => Promise.resolve(createMockStore(root)));
